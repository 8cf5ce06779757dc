"""A machine whose threads are all busy, so that work for them waits until they are let go."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager


@asynccontextmanager
async def threads_busy() -> AsyncIterator[None]:
    """Keep the only thread of this event loop busy; what is given to it meanwhile begins at the end."""
    go = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    held = loop.run_in_executor(None, go.wait)
    try:
        yield
    finally:
        go.set()
        await held
