"""``comptoir run`` goes on with its answer when a connection or a coordinator breaks: nothing lost, nothing doubled,
paid once."""

import asyncio
import json
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
from tests.cli.conftest import WITHIN_S, Program, Up, as_buyer, clean_environment, known_but_not_here
from tests.cli.gate import FRAMES, MODEL, OPEN, PROMPT, Gate, told
from tests.post import free_port

Start = Callable[..., Any]

PATIENT = ("--set", f"lease_s={10 * WITHIN_S}")
"""A host whose answer waits at the gate is not taken for lost, however slow the machine is."""


def newest(api: Api, *, delivered: int) -> dict[str, Any]:
    """Wait until the newest job is open and has delivered so many tokens."""
    until, pause = time.monotonic() + WITHIN_S, threading.Event()
    while time.monotonic() < until:
        jobs: list[dict[str, Any]] = api.get("/house/jobs").json()["jobs"]
        if jobs and not jobs[0]["receipt"] and jobs[0]["completion_tokens"] >= delivered:
            return jobs[0]
        pause.wait(0.02)
    raise AssertionError("no job runs")


class Street:
    """A coordinator, and a worker that outlives it, whose answers wait in their middle until the gate is opened."""

    def __init__(self, folder: Path, programs: Start) -> None:
        self._folder, self._programs, self._port = folder, programs, free_port()
        self.gate = Gate(folder)
        self.up = self.coordinator()
        self.up.until("listening")
        self.api = Api(Target(self.up.quickstart.url, self.up.quickstart.key, ""))
        state = ("--state", str(folder / "worker"), "--no-discover", "--no-measure")
        self.host: Program = programs(Program, "host", "--engine", self.gate.engine, *state, cwd=folder, env=self.buyer)
        self.host.until("connected, taking jobs")

    @property
    def buyer(self) -> dict[str, str]:
        return as_buyer(self.up)

    def coordinator(self) -> Up:
        up: Up = self._programs(Up, self._folder, "--no-worker", *PATIENT, port=self._port)
        return up

    def run(self, *more: str, model: str = MODEL) -> Program:
        made: Program = self._programs(
            Program, "run", *more, "--model", model, PROMPT, cwd=self._folder, env=self.buyer
        )
        return made


@pytest.fixture
def street(tmp_path: Path, programs: Start) -> Street:
    return Street(tmp_path, programs)


class TestCoordinatorRestarts:
    def test_the_answer_goes_on_where_it_stopped(self, street: Street) -> None:
        run = street.run("--json")
        newest(street.api, delivered=OPEN)

        street.up.process.kill()
        street.up.process.wait(WITHIN_S)
        again = street.coordinator()
        street.gate.open()

        assert run.ended() == 0
        bill = json.loads(run.text)
        assert told(bill["text"]) == list(range(FRAMES))
        assert bill["state"] == "completed"
        jobs = street.api.get("/house/jobs").json()["jobs"]
        assert [job["id"] for job in jobs] == [bill["job"]], "it was bought once"
        assert again.process.poll() is None

    def test_nobody_comes_back(self, street: Street) -> None:
        run = street.run("--reconnect", "1")
        job = newest(street.api, delivered=OPEN)

        street.up.process.kill()
        street.host.process.kill()

        assert run.ended() == 3
        assert f"comptoir jobs show {job['id']}" in run.text
        assert "Traceback" not in run.text


class TestInterrupted:
    def test_the_job_is_cancelled(self, street: Street) -> None:
        """Its answer waits at the gate, so that it can't be over before the signal comes."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            run = street.run()
            job = newest(street.api, delivered=OPEN)

            assert run.stop(number) == 130

            assert "■ cancelled" in run.text
            assert "Traceback" not in run.text
            found = street.api.get(f"/house/jobs/{job['id']}").json()
            assert (found["state"], found["completion_tokens"]) == ("cancelled", OPEN)
            assert street.api.get("/house/me").json()["account"]["held_uusd"] == 0

        self._waiting_in_line(street)
        assert len(street.api.get("/house/jobs").json()["jobs"]) == 4, "each was bought once"

    def _waiting_in_line(self, street: Street) -> None:
        """The server has not said yet which job it is."""
        known_but_not_here(street.api, "gone")
        run = street.run(model="gone")
        job = newest(street.api, delivered=0)

        assert run.stop(signal.SIGINT) == 130

        assert street.api.get(f"/house/jobs/{job['id']}").json()["state"] == "cancelled"
        assert street.api.get("/house/me").json()["account"]["held_uusd"] == 0


@pytest.fixture
def open_folder(run_folder: Path) -> Iterator[Path]:
    """A folder that PostgreSQL's user may pass through; pytest's is its owner's only."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=run_folder) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class TestCluster:
    async def test_another_coordinator_goes_on(self, open_folder: Path, programs: Start) -> None:
        """The one that the reader is connected to, and the host, is killed; the rest of the answer comes from the
        other."""
        cluster = LocalCluster(
            open_folder / "data", coordinators=2, drain_s=1.0, fsync=False, supervised=False, options=PATIENT
        )
        try:
            await cluster.start()
            first, second = cluster.coordinators
            known = read_quickstart(cluster.data)
            assert known is not None
            cluster.balancer.offer(second.address, open=False)
            env, gate = clean_environment(COMPTOIR_URL=cluster.url, COMPTOIR_KEY=known.key), Gate(open_folder)
            state = ("--state", str(open_folder / "worker"), "--no-discover", "--no-measure")
            host = programs(Program, "host", "--engine", gate.engine, *state, cwd=open_folder, env=env)
            await asyncio.to_thread(host.until, "connected, taking jobs")
            run = programs(Program, "run", "--json", "--model", MODEL, PROMPT, cwd=open_folder, env=env)
            await asyncio.to_thread(newest, Api(Target(first.url, known.key, "")), delivered=OPEN)
            cluster.balancer.offer(second.address)

            first.kill()
            gate.open()

            assert await asyncio.to_thread(run.ended) == 0
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
        assert [reply.take(chunk(text))[0] for text in ("ab", "cd")] == ["ab", "cd"]

        reply.told_again()

        assert [reply.take(chunk(text))[0] for text in ("a", "bcde", "f")] == ["", "e", "f"]
        assert (reply.text, reply.answer.restarted) == ("abcdef", False)

    def test_another_answer_is_told_whole(self) -> None:
        reply = StreamReply()
        reply.take(chunk("abcd"))
        reply.told_again()

        assert reply.take(chunk("ab"))[0] == ""
        assert (reply.take(chunk("XY"))[0], reply.answer.restarted) == ("abXY", True)
        assert reply.text == "abXY"

    def test_an_error_ends_it(self) -> None:
        with pytest.raises(Failure, match="the host was lost"):
            StreamReply().take('{"error": {"message": "the host was lost"}}')

    def test_one_that_began_anew_is_worth_asking_again(self) -> None:
        with pytest.raises(Failure) as failure:
            StreamReply().take(json.dumps({"error": {"message": "lost", "code": RESTARTED[0]}}))

        assert failure.value.code == Exit.UNREACHABLE
