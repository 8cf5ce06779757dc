"""``comptoir run`` goes on with its answer when a connection or a coordinator breaks: nothing lost, nothing doubled, paid once."""

import asyncio
import json
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.cli.answer import StreamReply
from comptoir.cli.api import Api
from comptoir.cli.cluster.local import LocalCluster
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.quickstart import read_quickstart
from comptoir.cli.target import Target
from comptoir.jobs import RESTARTED
from tests.chaos.engine import MODEL, Wanted, prompt_of
from tests.cli.conftest import WITHIN_S, Program, Up, clean_environment
from tests.post import free_port

Start = Callable[..., Any]

NUMBERED = "tests.chaos.engine:NumberedEngine"
FRAMES, PER_S = 150, 50.0
PROMPT = prompt_of(Wanted("a", FRAMES, per_s=PER_S, marked=False))


def told(text: str) -> list[int]:
    """Return the numbers of the frames in *text*, in their order."""
    return [int(number) for number in re.findall(r"\ba\.(\d+)~", text)]


def running_job(api: Api, *, tokens: int = 1) -> dict[str, Any]:
    """Wait until a job has delivered *tokens*."""
    until, pause = time.monotonic() + WITHIN_S, threading.Event()
    while time.monotonic() < until:
        jobs: list[dict[str, Any]] = api.get("/house/jobs").json()["jobs"]
        if jobs and jobs[0]["completion_tokens"] >= tokens:
            return jobs[0]
        pause.wait(0.02)
    raise AssertionError("no job runs")


def buyer(up: Up) -> dict[str, str]:
    return clean_environment(COMPTOIR_URL=up.quickstart.url, COMPTOIR_KEY=up.quickstart.key)


class Street:
    """A coordinator, and a worker that outlives it."""

    def __init__(self, folder: Path, programs: Start) -> None:
        self._folder, self._programs, self._port = folder, programs, free_port()
        self.up = self.coordinator()
        self.up.until("listening")
        self.api = Api(Target(self.up.quickstart.url, self.up.quickstart.key, ""))
        arguments = ("host", "--engine", NUMBERED, "--state", str(folder / "worker"), "--no-discover", "--no-measure")
        self.host: Program = programs(Program, *arguments, cwd=folder, env=buyer(self.up))
        self.host.until("connected, taking jobs")

    def coordinator(self) -> Up:
        up: Up = self._programs(Up, self._folder, "--no-worker", port=self._port)
        return up

    def run(self, *more: str) -> Program:
        made: Program = self._programs(
            Program, "run", *more, "--model", MODEL, PROMPT, cwd=self._folder, env=buyer(self.up)
        )
        return made


@pytest.fixture
def street(tmp_path: Path, programs: Start) -> Street:
    return Street(tmp_path, programs)


class TestCoordinatorRestarts:
    def test_the_answer_goes_on_where_it_stopped(self, street: Street) -> None:
        run = street.run("--json")
        running_job(street.api, tokens=20)

        street.up.process.kill()
        street.up.process.wait(WITHIN_S)
        street.coordinator()

        assert run.process.wait(WITHIN_S) == 0
        run._reader.join(WITHIN_S)
        bill = json.loads(run.text)
        assert told(bill["text"]) == list(range(FRAMES))
        assert bill["state"] == "completed"
        jobs = street.api.get("/house/jobs").json()["jobs"]
        assert [job["id"] for job in jobs] == [bill["job"]], "it was bought once"

    def test_nobody_comes_back(self, street: Street) -> None:
        run = street.run("--reconnect", "1")
        job = running_job(street.api, tokens=20)

        street.up.process.kill()
        street.host.process.kill()

        assert run.process.wait(WITHIN_S) == 3
        run._reader.join(WITHIN_S)
        assert f"comptoir jobs show {job['id']}" in run.text
        assert "Traceback" not in run.text


class TestInterrupted:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_the_job_is_cancelled(self, street: Street, number: int) -> None:
        run = street.run()
        running_job(street.api, tokens=5)

        assert run.stop(number) == 130

        (job,) = street.api.get("/house/jobs").json()["jobs"]
        assert job["state"] == "cancelled"
        assert street.api.get("/house/me").json()["account"]["held_uusd"] == 0

    def test_one_that_waits_in_line_is_cancelled_too(self, street: Street, programs: Start, tmp_path: Path) -> None:
        """The server has not said yet which job it is."""
        state = ("--state", str(tmp_path / "gone"), "--no-discover", "--no-measure")
        gone = programs(
            Program,
            "host",
            *state,
            "--engine",
            "bench.trivial_engine:TrivialEngine,model=gone",
            cwd=tmp_path,
            env=buyer(street.up),
        )
        gone.until("connected, taking jobs")
        gone.stop()
        run = programs(Program, "run", "--model", "gone", "hi", cwd=tmp_path, env=buyer(street.up))
        running_job(street.api, tokens=0)

        assert run.stop(signal.SIGINT) == 130

        (job,) = street.api.get("/house/jobs").json()["jobs"]
        assert job["state"] == "cancelled"
        assert street.api.get("/house/me").json()["account"]["held_uusd"] == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may pass through; pytest's is its owner's only."""
    with tempfile.TemporaryDirectory(prefix="comptoir-run-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class TestCluster:
    async def test_another_coordinator_goes_on(self, open_folder: Path, programs: Start) -> None:
        """The one that the reader is connected to, and the host, is killed; the rest of the answer comes from the other."""
        cluster = LocalCluster(open_folder / "data", coordinators=2, drain_s=1.0, fsync=False, supervised=False)
        try:
            await cluster.start()
            first, second = cluster.coordinators
            known = read_quickstart(cluster.data)
            assert known is not None
            cluster.balancer.offer(second.address, open=False)
            env = clean_environment(COMPTOIR_URL=cluster.url, COMPTOIR_KEY=known.key)
            arguments = (
                "host",
                "--engine",
                NUMBERED,
                "--state",
                str(open_folder / "worker"),
                "--no-discover",
                "--no-measure",
            )
            host = programs(Program, *arguments, cwd=open_folder, env=env)
            await asyncio.to_thread(host.until, "connected, taking jobs")
            run = programs(Program, "run", "--json", "--model", MODEL, PROMPT, cwd=open_folder, env=env)
            await asyncio.to_thread(running_job, Api(Target(first.url, known.key, "")), tokens=20)
            cluster.balancer.offer(second.address)

            first.kill()

            assert await asyncio.to_thread(run.process.wait, WITHIN_S) == 0
            await asyncio.to_thread(run._reader.join, WITHIN_S)
        finally:
            await cluster.stop()
        bill = json.loads(run.text)
        assert told(bill["text"]) == list(range(FRAMES))
        assert bill["state"] == "completed"


def chunk(text: str) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]})


class TestReply:
    def test_what_was_told_before_is_passed_over(self) -> None:
        reply = StreamReply()
        assert [reply.take(chunk(text)) for text in ("ab", "cd")] == ["ab", "cd"]

        reply.told_again()

        assert [reply.take(chunk(text)) for text in ("a", "bcde", "f")] == ["", "e", "f"]
        assert (reply.text, reply.restarted) == ("abcdef", False)

    def test_another_answer_is_told_whole(self) -> None:
        reply = StreamReply()
        reply.take(chunk("abcd"))
        reply.told_again()

        assert reply.take(chunk("ab")) == ""
        assert (reply.take(chunk("XY")), reply.restarted) == ("abXY", True)
        assert reply.text == "abXY"

    def test_an_error_ends_it(self) -> None:
        with pytest.raises(Failure, match="the host was lost"):
            StreamReply().take('{"error": {"message": "the host was lost"}}')

    def test_one_that_began_anew_is_worth_asking_again(self) -> None:
        with pytest.raises(Failure) as failure:
            StreamReply().take(json.dumps({"error": {"message": "lost", "code": RESTARTED[0]}}))

        assert failure.value.code == Exit.UNREACHABLE
