"""Nothing of a buyer's stays on a host's disk, whichever way its job ends; a chat never touches the disk."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from comptoir.kinds import Kinds
from comptoir.kinds.files import InputFile, artifacts_in
from comptoir.kinds.registry import BUILT_IN
from comptoir.link import Job, Settled
from comptoir.worker.addresses import Addresses
from comptoir.worker.files import HostFiles
from tests.kinds.press import Press
from tests.kinds.press.engine import PressEngine
from tests.worker.busy_threads import threads_busy
from tests.worker.conftest import Half, JoinWorker
from tests.worker.coordinator_stand_in import Attempt, Coordinator, make_job
from tests.worker.files.stores import JOB, KEY, LEASE, FileStore, file_store, sha256
from tests.worker.scripted_engine import ScriptedEngine, answer
from tests.worker.test_uplink import settled

SECRET = b"the buyer's own words"
KINDS = Kinds((*BUILT_IN, Press))

KILLED = """
import asyncio, sys
import msgspec
from comptoir.kinds.files import InputFile
from comptoir.worker.addresses import Addresses
from comptoir.worker.files import HostFiles
from pathlib import Path

async def main():
    url, folder, key, job, lease, inputs = sys.argv[1:]
    files = HostFiles(Path(folder), addresses=Addresses([url]))
    files.key = key
    until_s = asyncio.get_running_loop().time() + 3600
    asked = msgspec.json.decode(inputs, type=list[InputFile])
    path, _ = await files.of_lease(job=job, lease=lease, inputs=asked, until_s=until_s).fetch(0)
    print(path, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest_asyncio.fixture
async def store() -> AsyncIterator[FileStore]:
    async with file_store() as running:
        running.inputs = [SECRET, SECRET * 2]
        yield running


@pytest_asyncio.fixture
async def files(store: FileStore, tmp_path: Path) -> AsyncIterator[HostFiles]:
    made = HostFiles(tmp_path / "jobs", addresses=Addresses([store.url]))
    made.key = KEY
    yield made
    await made.close()


def order(store: FileStore) -> Job:
    inputs = [InputFile("in", f"file_{n}", "", sha256(each), len(each)) for n, each in enumerate(store.inputs)]
    return make_job(1, kind="press", body=msgspec.json.encode({"inputs": inputs}))


def on_disk(folder: Path) -> list[str]:
    """Return the names of all files and folders of jobs below *folder*, which workers share."""
    workers = [
        walk for worker in folder.glob("worker_*") for walk in os.walk(worker)
    ]  # Whatever goes meanwhile is gone.
    return sorted(name for _, folders, files in workers for name in (*folders, *files) if name != "lock")


def all_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def first_page(attempt: Attempt) -> None:
    async with asyncio.timeout(10):
        while not artifacts_in(attempt.frames):
            attempt.grew.clear()
            await attempt.grew.wait()


async def none_left(folder: Path) -> None:
    """Wait until the disk holds nothing: an engine that was cancelled takes a moment to end."""
    async with asyncio.timeout(10):
        while on_disk(folder):
            await asyncio.sleep(0.001)


async def finished(half: Half, coordinator: Coordinator, attempt: Attempt, gate: Path) -> None:
    await asyncio.to_thread(gate.touch)
    await settled(coordinator)
    assert attempt.done is not None and attempt.done.usage.completion_tokens == 2


async def cancelled(half: Half, coordinator: Coordinator, attempt: Attempt, gate: Path) -> None:
    await coordinator.cancel(attempt)


async def given_to_another(half: Half, coordinator: Coordinator, attempt: Attempt, gate: Path) -> None:
    attempt.forgotten = True
    await coordinator.send(Settled(attempt.job.lease, "", "lost", 0, 0, 0))


async def unknown_after_a_cut(half: Half, coordinator: Coordinator, attempt: Attempt, gate: Path) -> None:
    attempt.forgotten = True
    coordinator.cut()


async def given_up(half: Half, coordinator: Coordinator, attempt: Attempt, gate: Path) -> None:
    await half.runner.abandon()


Ending = Callable[[Half, Coordinator, Attempt, Path], Awaitable[None]]


class TestErased:
    @pytest.mark.parametrize("ending", [finished, cancelled, given_to_another, unknown_after_a_cut, given_up])
    async def test_nothing_is_left_when_a_job_is_over(
        self,
        coordinator: Coordinator,
        join: JoinWorker,
        store: FileStore,
        files: HostFiles,
        tmp_path: Path,
        ending: Ending,
    ) -> None:
        folder, gate = tmp_path / "jobs", tmp_path / "gate"
        async with join(PressEngine(gate=str(gate)), kinds=KINDS, files=files) as half:
            attempt = await coordinator.push(order(store))
            await first_page(attempt)
            assert on_disk(folder) == ["1", "in-0", "in-1"]

            await ending(half, coordinator, attempt, gate)
            await none_left(folder)

        assert coordinator.violations == []

    async def test_nothing_is_left_when_an_input_can_not_be_had(
        self, coordinator: Coordinator, join: JoinWorker, store: FileStore, files: HostFiles, tmp_path: Path
    ) -> None:
        job = order(store)
        store.inputs[1] = SECRET * 3
        async with join(PressEngine(), kinds=KINDS, files=files):
            attempt = await coordinator.push(job)
            await settled(coordinator)
            await none_left(tmp_path / "jobs")

        assert attempt.fail is not None and (attempt.fail.code, attempt.fail.fault) == ("input_wrong", "coordinator")

    async def test_nothing_is_left_when_the_job_is_settled_before_its_files_are_erased(
        self, files: HostFiles, tmp_path: Path
    ) -> None:
        """Who cleans up is cancelled then, and a thread that had not begun to erase never began."""
        held = files.of_lease(job=JOB, lease=LEASE, inputs=(), until_s=asyncio.get_running_loop().time())
        held.folder.joinpath("in-0").write_bytes(SECRET)
        async with threads_busy():
            erasing = asyncio.create_task(held.erase())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            erasing.cancel()
            await asyncio.wait((erasing,))

        await none_left(tmp_path / "jobs")

    async def test_a_chat_makes_no_folder_and_no_connection(
        self, coordinator: Coordinator, join: JoinWorker, files: HostFiles, tmp_path: Path
    ) -> None:
        engine = ScriptedEngine(*answer("a"))
        async with join(engine, kinds=KINDS, files=files):
            await coordinator.push(make_job(1))
            await settled(coordinator)

        assert engine.requests[0].files is None and files._session is None
        assert all_in(tmp_path) == []

    async def test_a_job_that_asks_for_no_file_makes_no_folder(
        self, coordinator: Coordinator, join: JoinWorker, files: HostFiles, tmp_path: Path
    ) -> None:
        engine = ScriptedEngine(*answer("a"))
        async with join(engine, kinds=KINDS, files=files):
            await coordinator.push(make_job(1, kind="press"))
            await settled(coordinator)

        assert engine.requests[0].files is not None
        assert all_in(tmp_path) == []

    async def test_what_a_killed_worker_left_is_erased_at_the_next_start(
        self, store: FileStore, tmp_path: Path
    ) -> None:
        """And what a worker beside it works with is not."""
        jobs = tmp_path / "jobs"
        inputs = msgspec.json.encode([InputFile("in", "file_0", "", sha256(SECRET), len(SECRET))]).decode()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, store.url, str(jobs), KEY, JOB, LEASE, inputs,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src:."},
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readline()
        assert on_disk(jobs) == ["1", "in-0"]

        beside = HostFiles(jobs, addresses=Addresses([store.url]))
        beside.open(needed=False)
        assert on_disk(jobs) == ["1", "in-0"]
        await beside.close()
        process.kill()
        await process.wait()
        assert on_disk(jobs) == ["1", "in-0"]

        after = HostFiles(jobs, addresses=Addresses([store.url]))
        after.open(needed=False)
        assert on_disk(jobs) == []
        await after.close()
        assert all_in(jobs) == ["lock"]
