"""What is left of a link that was cut: nothing that waits for the cycle collector, which runs rarely here."""

import asyncio
import gc
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import LINK, NewHost
from comptoir.kit.http.connection import BoundedHttpProtocol
from comptoir.kit.http.websocket import BoundedWebSocketProtocol
from comptoir.transports.link import Session
from tests.post import open_post
from tests.street import OFFER

PARTS = (BoundedHttpProtocol, BoundedWebSocketProtocol, Session)
HALF = struct.pack("!BBQ", 0x82, 0xFF, 1 << 20) + bytes(4 + 1000)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Let no cycle collector run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_a_link_that_is_cut_leaves_no_circle(tmp_path: Path, uncollected: None) -> None:
    """5,000 links that came with half a message, were cut and came again held 340 MiB when each left 17 KB."""
    async with open_post(tmp_path) as post:
        host = await add_host(post.core, NewHost(gpu="x", models=(OFFER,), slots=1, transport=LINK))
        before = {id(one) for one in gc.get_objects() if isinstance(one, PARTS)}
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(post.url).port)
        writer.write(
            b"GET /comptoir/link HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: " + b"A" * 22 + b"==\r\n"
            b"authorization: Bearer " + host.key.encode() + b"\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(HALF)
        made = [weakref.ref(one) for one in gc.get_objects() if isinstance(one, PARTS) and id(one) not in before]
        # What read the request is gone as soon as it has handed the connection over.
        assert {type(one()) for one in made} == {BoundedWebSocketProtocol, Session}

        writer.close()
        async with asyncio.timeout(20):
            while any(one() is not None for one in made):
                await asyncio.sleep(0)
