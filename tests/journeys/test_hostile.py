"""Hostile connections in small: a coordinator of its own process, whose memory and callers must not notice them."""

import asyncio
import contextlib
import io
import resource
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from bench.bench_hostile import endless_head, half_link_message, slow_body, status_mib

from comptoir.app import open_core
from comptoir.dispatch.onboard import add_user
from comptoir.settings import Settings
from tests.house.tree import ROOT
from tests.leftovers import mark
from tests.post import free_port

MIB = 1 << 20

BOUND_S = 60.0
"""A bound against hanging."""

CONNECTIONS = 150
"""Of each kind: without bounds the heads and bodies of these would be 25 MB at once, and grow for ever."""

GROWTH_MIB_MAX = 60
"""What all of them together may add to the coordinator's memory."""

ADDRESS_SPACE_KIB = 900_000
"""What ``ulimit -v`` left it when it crashed (row 16)."""


@dataclass
class Child:
    """The coordinator process."""

    url: str
    key: str
    process: asyncio.subprocess.Process

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextlib.asynccontextmanager
async def coordinator(folder: Path, *, address_space_kib: int = 0) -> AsyncIterator[Child]:
    data = folder / "data"
    async with open_core(Settings(data=str(data))) as core:
        made = await add_user(core, username="ada", email=None, password=None, credit_uusd=10**12)
    port = free_port()

    def limit() -> None:
        if address_space_kib:
            resource.setrlimit(resource.RLIMIT_AS, (address_space_kib << 10,) * 2)

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.journeys.coordinator", str(data), "", str(port), cwd=ROOT, preexec_fn=limit,
        env={**mark(), "PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": "", "MALLOC_ARENA_MAX": "2"},
    )  # fmt: skip
    child = Child(f"http://127.0.0.1:{port}", made.key, process)
    try:
        async with asyncio.timeout(BOUND_S):
            while not await healthy(child):
                await asyncio.sleep(0.05)
            yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def healthy(child: Child) -> bool:
    try:
        async with aiohttp.ClientSession(child.url) as session, session.get("/health") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


READS_LARGE_THINGS = """
import threading
from pathlib import Path
from comptoir.app import tune_interpreter

def resident_kib():
    return int(next(line for line in Path("/proc/self/status").open() if line.startswith("VmRSS")).split()[1])

def read():
    for _ in range(5):
        large = bytes(20 << 20)
        kept.append(b"x" * 2_000)
        large = large + b"1"

tune_interpreter()
kept, before = [], resident_kib()
threads = [threading.Thread(target=read) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident_kib() - before)
"""


Sends = Callable[[int, list[str]], tuple[bytes, bytes]]


class TestHostile:
    async def test_what_they_send_is_not_kept_and_others_are_answered(self, tmp_path: Path) -> None:
        """The same in large, with its times: ``python -m bench.bench_hostile``."""
        kinds: list[Sends] = [endless_head, slow_body, half_link_message]
        async with coordinator(tmp_path) as child, contextlib.AsyncExitStack() as stack:
            before = status_mib(child.process.pid, "VmRSS")
            writers = []
            for number in range(CONNECTIONS):
                for kind in kinds:
                    first, more = kind(number, [child.url, child.key, child.key])
                    local = (f"127.0.1.{1 + number % 8}", 0)
                    _, writer = await asyncio.open_connection("127.0.0.1", child.port, local_addr=local)
                    stack.callback(writer.transport.abort)
                    writer.write(first)
                    writers.append((writer, more))
            for _ in range(20):
                for writer, more in writers:
                    writer.write(more)
                assert await healthy(child)
            grown = status_mib(child.process.pid, "VmHWM") - before

            assert child.process.returncode is None
            assert grown < GROWTH_MIB_MAX

    @pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
    async def test_memory_of_large_things_is_returned_by_every_thread(self) -> None:
        """By itself glibc keeps what was freed, in the heap of each thread: six that read 20 MB kept 160 MB."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READS_LARGE_THINGS, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            env={**mark(), "PYTHONPATH": f"{ROOT}/src", "PATH": ""},
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), BOUND_S)

        assert int(said) < 30 << 10

    @pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
    async def test_a_memory_limit_is_no_crash(self, tmp_path: Path) -> None:
        """Row 16: 25 bodies of 30 MB under ``ulimit -v 900000`` were a segmentation fault; they are refused in
        words."""
        body = b'{"model":"nobody","input_text":"' + b"x" * (30 * MIB) + b'"}'
        statuses: list[int] = []

        async def send(session: aiohttp.ClientSession) -> None:
            headers = {"authorization": f"Bearer {child.key}", "content-type": "application/json"}
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post("/run/model", data=io.BytesIO(body), headers=headers) as answer:
                    assert (await answer.json())["detail"]
                    statuses.append(answer.status)

        async with coordinator(tmp_path, address_space_kib=ADDRESS_SPACE_KIB) as child:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(child.url, connector=connector) as session:
                await asyncio.gather(*[send(session) for _ in range(25)])

            assert child.process.returncode is None
            assert await healthy(child)
        assert 503 in statuses
        assert set(statuses) <= {404, 413, 503}
