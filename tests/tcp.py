"""Servers of tests that leave no connection behind when they end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from comptoir.kit.http import ACCEPT_TURNS

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    connected: Connected, *, address: str = "127.0.0.1", port: int = 0, limit: int = 1 << 16
) -> AsyncIterator[int]:
    """Serve on *port* of *address* (0: a free one), and give its number.

    At the end what still runs for a connection is cancelled and the connection reset. One that is left to the garbage
    collector warns in whichever test happens to run then, and only where the machine is slow.
    """
    under_way: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    over = False

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way[task] = writer
        try:
            if not over:
                await connected(reader, writer)
        finally:
            del under_way[task]
            if over:
                writer.transport.abort()

    server = await asyncio.start_server(met, address, port, limit=limit)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        over = True
        server.close()
        for _ in range(ACCEPT_TURNS):
            for task in list(under_way):
                task.cancel()
            await asyncio.sleep(0)
        if under_way:
            await asyncio.wait(list(under_way))
        await asyncio.sleep(0)


async def accepted() -> None:
    """Wait until a server that was closed just now knows what it was accepting."""
    for _ in range(ACCEPT_TURNS):
        await asyncio.sleep(0)


async def stop(runner: web.AppRunner) -> None:
    """Stop a server of aiohttp, with what it is accepting at this moment: by itself it forgets that."""
    for site in list(runner.sites):
        await site.stop()
    await accepted()
    await runner.cleanup()
