"""Files of the buyer's on their way from the coordinator to the disk, in as many parts as the connection allows."""

from pathlib import Path

import aiohttp

from comptoir.kinds.files import InputFile
from comptoir.worker.engines.base import EngineError
from comptoir.worker.files.arriving import Arriving
from comptoir.worker.files.calls import LeaseCalls, Unreached

_PARTIAL = 206


async def fetch_file(calls: LeaseCalls, number: int, asked: InputFile, path: Path) -> None:
    """Fetch input *number*, a file of the buyer's, into *path*.

    Raises:
        EngineError: it can't be had in time, this host has no room, or what came is not what the order says.
    """
    size, sha256 = asked.size, asked.sha256
    if size is None or sha256 is None:
        raise _wrong(number, "came without its size and SHA-256")
    arriving = Arriving(path, bytes_max=size, too_long=lambda: _wrong(number, f"is longer than {size} bytes"))
    arriving.open()
    try:
        trying = calls.trying()
        while arriving.size < size:
            before = arriving.size
            try:
                await _fetch_rest(calls, number, arriving)
                if arriving.size == before:
                    raise Unreached("it sent nothing")
            except Unreached as reason:
                if arriving.size > before:
                    trying.progressed()
                await trying.again(reason)
        if arriving.sha256 != sha256:
            raise _wrong(number, "came with other bytes than the order says")
    finally:
        arriving.close()


async def _fetch_rest(calls: LeaseCalls, number: int, arriving: Arriving) -> None:
    asked = {"Range": f"bytes={arriving.size}-"} if arriving.size else {}
    async with calls.request("GET", f"/inputs/{number}", headers=asked) as response:
        if not goes_on(response, arriving.size):
            arriving.restart()
        await arriving.take(response)


def goes_on(response: aiohttp.ClientResponse, at: int) -> bool:
    """Whether an answer begins with byte *at*; one with the whole does so only at 0."""
    if response.status != _PARTIAL:
        return at == 0
    return response.headers.get("Content-Range", "").startswith(f"bytes {at}-")


def _wrong(number: int, what: str) -> EngineError:
    return EngineError("input_wrong", f"input {number} {what}", fault="coordinator")
