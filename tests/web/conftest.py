"""One headless Chromium for all tests; each opens a context of its own, which shares nothing with the others."""

import os
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

REBOUND = "evil.example"
"""A name of somebody else's that was pointed at this machine."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """Start the browser, which takes longer than most tests with it."""
    arguments = [f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    async with async_playwright() as driver:
        started = await driver.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        await started.close()
