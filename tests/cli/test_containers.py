"""Containers as people at a terminal meet them: told of, listed, bought by the run, looked at, proved."""

import io
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from comptoir.cli.api import Api
from comptoir.cli.greeting import ByTheRun, Greeting, run_snippet
from comptoir.cli.target import Target
from tests.cli.conftest import Invoke, Up
from tests.post import free_port

SHOUT = Path(__file__).resolve().parents[2] / "examples" / "container" / "shout.py"


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """The container of ``examples/`` on a port of its own; gives its address once it answers."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SHOUT)], env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory, container: str) -> Iterator[Up]:
    """A trading post that offers the container and nothing else."""
    up = Up(tmp_path_factory.mktemp("post"), engine=f"container,id=shout,url={container},description=Louder.")
    try:
        up.until(r'{"text": "hello"}}')
        yield up
    finally:
        up.end()


def api(post: Up, *, key: bool = True) -> Api:
    return Api(Target(post.quickstart.url, post.quickstart.key if key else "", ""))


def buy(post: Up, *containers: str, key: bool = True) -> str:
    """Buy a chain and wait for its end; return the job's id as the house has it."""
    asked = api(post, key=key)
    body = {"containers": containers, "data": {"text": "hello"}}
    job = asked.call("POST", "/api/jobs", body=body).json()["id"]
    until = time.monotonic() + 20
    while True:
        (found,) = asked.get(f"/api/jobs?id={job}").json()
        if found["status"] != "running":
            assert found["result"]["output"] == {"text": "HELLO"}
            return f"job_{job.replace('-', '')}"
        assert time.monotonic() < until
        time.sleep(0.05)


class TestGreeting:
    def test_a_container_that_comes_on_offer_is_told_with_how_to_buy_a_run(self, post: Up) -> None:
        assert "● container shout  $0.001 a run\n" in post.text
        known = post.quickstart
        assert run_snippet(url=known.url, key="", container="shout") in post.text

    def test_it_says_who_needs_no_key_and_up_to_how_much(self, post: Up) -> None:
        line = next(line for line in post.text.splitlines() if line.startswith("keyless "))

        assert "programs on this machine may use the Infernet API, for 100.00 credits a day" in line
        buy(post, "shout", key=False)

    def test_the_first_that_can_begin_a_job_shows_how_and_no_other(self) -> None:
        said = io.StringIO()
        greeting = Greeting(Console(file=said, width=200))
        inside, first, other = (ByTheRun(name, name != "inside", 1, 2_000) for name in ("inside", "first", "other"))

        for offered in ([inside], [inside, first], [inside, first, other], [inside], [inside, first]):
            greeting.containers_changed(offered, url="http://x", key="ck_1")

        text = said.getvalue()
        assert "● container inside  $0.002 a run, private" in text
        assert text.count("/api/jobs") == 1 and '"containers": ["first"]' in text
        assert text.count("● container first ") == 2, "one that went and came again is told again"

    def test_a_name_that_a_shell_would_obey_stays_a_name(self) -> None:
        """A host chose it, and people paste what they see."""
        snippet = run_snippet(url="http://x", key="ck_1", container="a'; reboot #")

        assert json.loads(shlex.split(snippet.replace("\\\n", ""))[-1])["containers"] == ["a'; reboot #"]


class TestModels:
    def test_containers_are_listed_with_the_price_of_a_run(self, ask: Invoke) -> None:
        result = ask("models")

        assert result.exit_code == 0
        assert "shout" in result.stdout and "Louder." in result.stdout and "$0.001 a run" in result.stdout

    def test_programs_get_both_lists(self, ask: Invoke) -> None:
        page = json.loads(ask("models", "--json").stdout)

        assert page["models"] == []
        assert [(one["name"], one["price_uusd_per_run"]) for one in page["containers"]] == [("shout", 1_000)]


class TestJobs:
    def test_a_chain_shows_who_ran_what_for_how_much(self, ask: Invoke, post: Up) -> None:
        job = buy(post, "shout", "shout")

        assert "shout,shout" in ask("jobs").stdout and "2 runs" in ask("jobs").stdout
        shown = ask("jobs", "show", job).stdout
        assert "chain" in shown and "2 of 2" in shown
        # A tenth of a cent each, less 12 percent.
        assert shown.count("0.088") == 2 and shown.count("$0.001 a run") == 2

    def test_its_receipt_counts_runs(self, ask: Invoke, post: Up) -> None:
        shown = ask("receipt", "show", buy(post, "shout")).stdout

        assert "containers" in shown and "shout" in shown and "runs" in shown
        assert "tokens  " not in shown and "good" in shown


class TestRun:
    def test_a_container_is_not_asked_and_it_is_said_how_to_buy_a_run(self, ask: Invoke) -> None:
        result = ask("run", "--model", "shout", "hi")

        assert result.exit_code == 1
        assert "shout is a container: it is sold by the run" in result.output
        assert "/api/jobs" in result.output and '{"containers": ["shout"], "data": {}}' in result.output

    def test_a_name_that_nobody_offers_is_refused_as_before(self, ask: Invoke) -> None:
        result = ask("run", "--model", "nobody", "hi")

        assert result.exit_code == 1 and "is a container" not in result.output
