"""``comptoir host``: joins, tells what it earns, and leaves in order."""

import io
import re
import sys
import threading
from collections.abc import Callable
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from comptoir.cli.board import Board, format_event
from comptoir.cli.host import _prices
from comptoir.cli.main import program
from comptoir.cli.prices import read_run_prices, read_unit_price, read_unit_prices
from comptoir.cli.up import _worker_arguments
from comptoir.kinds import Kinds, Unit, load_kinds
from comptoir.settings import Settings
from comptoir.worker.run import WorkerConfig
from tests.cli.conftest import ENGINE, Invoke, Program, Up, clean_environment
from tests.selling import TARGET

Start = Callable[..., Any]


KINDS = load_kinds([TARGET])


class TestHost:
    def test_it_registers_keeps_its_key_and_drains(self, post: Up, tmp_path: Path, programs: Start) -> None:
        known = post.quickstart
        arguments = ("host", "--engine", ENGINE + ",model=other", "--state", str(tmp_path / "s"), "--price-out", "50cr")
        env = clean_environment(COMPTOIR_URL=known.url, COMPTOIR_KEY=known.key)

        first = programs(Program, *arguments, cwd=tmp_path, env=env)
        name = first.until(r"registered as (host_\w+)")[1]
        first.until("connected, taking jobs")
        assert first.stop() == 0
        assert first.text.rstrip().endswith("stopped")

        second = programs(Program, *arguments, cwd=tmp_path, env=env)
        assert second.until(r"back as (host_\w+)")[1] == name
        post.until(f"● active .* other  {name}")

    def test_a_refused_host_key_says_what_to_do(self, post: Up, tmp_path: Path, programs: Start) -> None:
        url = post.quickstart.url
        (tmp_path / "host.json").write_text(
            f'{{"url":"{url}","seed":"{"ab" * 32}","host_id":"host_1","api_key":"hk_live_{"x" * 43}"}}'
        )

        host = programs(Program, "host", "--url", url, "--engine", ENGINE, "--state", str(tmp_path), cwd=tmp_path)

        host.until("✗ .*state file: ")
        assert host.process.wait(30) == 4

    def test_no_engine_is_a_usage_error(self, invoke: Invoke) -> None:
        result = invoke("host", "--url", "http://127.0.0.1:9")

        assert result.exit_code == 2
        assert "--engine http://127.0.0.1:8000/v1" in result.output

    def test_an_engine_that_does_not_work_says_why(self, invoke: Invoke, tmp_path: Path) -> None:
        result = invoke(
            "host", "--url", "http://127.0.0.1:9", "--engine", "http://127.0.0.1:9/v1", "--state", str(tmp_path)
        )

        assert result.exit_code == 1
        assert "127.0.0.1:9" in result.output

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--engine", "demo,x"), "must look like option=value"),
            (("--engine", "demo", "--price", "m=1"), "MODEL=IN/OUT"),
            (("--engine", "demo", "--price-out", "cheap"), "is no price"),
            (("--engine", "demo", "--price-run", "shout=dear"), "write dollars per run (0.002) or credits (0.2cr)"),
            (("--engine", "demo", "--price-run", "1001"), "must be 0 to $1,000 per run"),
            (("--engine", "demo", "--price-run", "0.0000001"), "in whole micro-dollars"),
            (("--engine", "demo", "--price-run", "a=1", "--price-run", "a=2"), "was given already"),
            (("--engine", "demo", "--slots", "0"), "--slots"),
            (("--engine", "demo", "--kind", "nowhere:Kind"), "can't be loaded"),
            (("--engine", "demo", "--unit-price", "byte=1"), "a unit of token_in (per million prompt tokens), "),
            (("--engine", "demo", "--unit-price", "m:7b=1"), "must look like [MODEL:]UNIT=PRICE"),
            (("--engine", "demo", "--unit-price", "run=1", "--unit-price", "run=2"), "was given already"),
            (("--engine", "demo", "--kind", TARGET, "--unit-price", "byte=dear"), "dollars per kilobyte (0.002) or"),
            (("--engine", "demo", "--kind", TARGET, "--unit-price", "byte=1001"), "must be 0 to $1,000 per kilobyte"),
            (("--engine", "demo", "--url", "ftp://b.example"), "'ftp://b.example' is no address of a web server"),
        ],
    )
    def test_bad_options_are_usage_errors(self, invoke: Invoke, options: tuple[str, ...], words: str) -> None:
        result = invoke("host", "--url", "http://127.0.0.1:9", *options)

        assert result.exit_code == 2
        assert words in result.output

    def test_an_infernet_config_says_what_becomes_of_it(self, invoke: Invoke, tmp_path: Path) -> None:
        config = tmp_path / "config.json"
        config.write_text(
            '{"redis": {}, "containers": [{"id": "a", "image": "example/i", "doors": 1, "bearer": "hush"}]}'
        )

        result = invoke("host", "--url", "http://127.0.0.1:9", "--infernet-config", str(config))

        assert result.exit_code == 2
        assert "config.json: not needed: redis: the coordinator's database keeps the jobs" in result.output
        assert "config.json: refused: containers[0].doors: unknown here" in result.output
        assert "none of its containers can be offered" in result.output
        assert "hush" not in result.output

    @pytest.mark.parametrize(("text", "words"), [("{", "no JSON"), ('{"containers": 1}', "containers: must be a list")])
    def test_an_infernet_config_that_is_none_is_a_usage_error(
        self, invoke: Invoke, tmp_path: Path, text: str, words: str
    ) -> None:
        (tmp_path / "c.json").write_text(text)

        result = invoke("host", "--url", "http://127.0.0.1:9", "--infernet-config", str(tmp_path / "c.json"))

        assert result.exit_code == 2
        assert words in result.output

    def test_an_infernet_config_is_served(self, post: Up, tmp_path: Path, programs: Start) -> None:
        with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as container:
            threading.Thread(target=container.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            url = f"http://127.0.0.1:{container.server_port}"
            config = tmp_path / "config.json"
            config.write_text(f'{{"manage_containers": false, "containers": [{{"id": "shout", "url": "{url}"}}]}}')
            env = clean_environment(COMPTOIR_URL=post.quickstart.url, COMPTOIR_KEY=post.quickstart.key)

            host = programs(
                Program, "host", "--infernet-config", str(config), "--state", str(tmp_path / "s"), cwd=tmp_path, env=env
            )
            host.until(r"config\.json: used: containers\[0\]: id, url")
            host.until("engine infernet is ready: shout")
            host.until("connected, taking jobs")
            assert host.stop() == 0
            container.shutdown()

    def test_containers_without_an_engine_are_named_and_end_it(self, invoke: Invoke, tmp_path: Path) -> None:
        config = tmp_path / "config.json"
        config.write_text('{"containers": [{"id": "a", "image": "example/i"}]}')

        result = invoke(
            "host",
            "--url",
            "http://127.0.0.1:9",
            "--infernet-config",
            str(config),
            "--state",
            str(tmp_path),
            DOCKER_HOST="tcp://127.0.0.1:2375",
        )

        assert result.exit_code == 1
        assert "a: DOCKER_HOST is tcp://…: only unix:// is used" in result.output


class TestRunPrices:
    @pytest.mark.parametrize(
        ("texts", "found"),
        [
            ((), (1_000, {})),
            (("0.002",), (2_000, {})),
            (("$1000", "shout=0.2cr"), (10**9, {"shout": 2_000})),
            (("a=b=0", "c=0.5"), (1_000, {"a=b": 0, "c": 500_000})),
        ],
    )
    def test_one_for_all_and_some_by_name(self, texts: tuple[str, ...], found: tuple[int, dict[str, int]]) -> None:
        assert read_run_prices(texts) == found

    @pytest.mark.parametrize(
        ("texts", "found"),
        [
            ((), {}),
            (("byte=0.0002",), {"": {"byte": 200_000}}),
            (("byte=0.02cr", "scribe:byte=0"), {"": {"byte": 200_000}, "scribe": {"byte": 0}}),
            (
                ("qwen2.5:7b:token_out=0.2", "run=$0.5"),
                {"qwen2.5:7b": {"token_out": 200_000}, "": {"run": 500_000_000_000}},
            ),
            (
                ("second=0.0001", "p:CPU_second=0.02cr", "second-of-video=0"),
                {"": {"wall_ms": 100_000, "video_ms": 0}, "p": {"cpu_ms": 200_000}},
            ),
        ],
    )
    def test_any_unit_for_all_and_for_some(self, texts: tuple[str, ...], found: dict[str, dict[str, int]]) -> None:
        assert read_unit_prices(texts, KINDS.units) == found

    def test_the_price_of_an_hour_is_a_whole_number_a_million_seconds(self) -> None:
        hour = Unit("second", "second", "seconds", 3600, "hour")

        assert read_unit_price("1", hour) == 277_777_778
        with pytest.raises(click.BadParameter, match="whole micro-dollars"):
            read_unit_price("0.0000000001", hour)

    def test_a_container_named_in_both_ways_has_both_prices(self) -> None:
        """What a name is, a model or a container, is known only once its engine runs."""
        prices = _prices(("both=0.1/0.2", "chat=1/2"), {"both": 7, "shout": 9}, {})

        assert prices == {
            "both": {"token_in": 100_000, "token_out": 200_000, "run": 7_000_000},
            "chat": {"token_in": 1_000_000, "token_out": 2_000_000},
            "shout": {"run": 9_000_000},
        }

    def test_a_price_by_its_unit_has_the_last_word(self) -> None:
        prices = _prices(("both=0.1/0.2",), {"both": 7}, {"both": {"run": 5}, "scribe": {"byte": 1}})

        assert prices == {"both": {"token_in": 100_000, "token_out": 200_000, "run": 5}, "scribe": {"byte": 1}}


EVENTS = [
    # kind, facts, a part of what is said
    ("HardwareFound", {"gpu": "2x H100", "vram_mib": 163_840}, "runs on 2x H100, 163,840 MiB"),
    ("EngineReady", {"engine": "openai", "models": ["m"], "first_token_s": 0.05, "tokens_per_s": 80.0}, "80 tokens/s"),
    (
        "EngineReady",
        {
            "engine": "openai", "models": ["m"], "first_token_s": 0.0, "tokens_per_s": 0.0,
            "goes_on_by": "prompt token ids (vLLM 0.11.0)",
        },
        "ready: m; can continue other hosts' answers by prompt token ids (vLLM 0.11.0)",
    ),
    (
        "EngineReady",
        {"engine": "openai", "models": ["m"], "first_token_s": 0.0, "tokens_per_s": 0.0, "goes_on_by": ""},
        "can't continue",
    ),
    (
        "EngineReady",
        {
            "engine": "openai", "models": ["m"], "first_token_s": 0.0, "tokens_per_s": 0.0, "goes_on_by": "",
            "capabilities": {"m": {"tools": "probed", "vision": "lacking", "schema": "claimed"}},
        },
        "ready: m; can do tools, schema (claimed); can't continue",
    ),
    (
        "EngineReady",
        {
            "engine": "container", "models": ["shout", "gift"], "first_token_s": 0.0, "tokens_per_s": 0.0, "goes_on_by": "",
            "prices": {"shout": {"run": 2_000_000_000}, "gift": {"run": 0}},
        },
        "engine container is ready: shout (0.20 credits a run), gift (free)",
    ),
    ("EngineSkipped", {"engine": "demo", "why": "no library"}, "is skipped: no library"),
    ("Registered", {"host_id": "host_1", "new": True, "state_file": "f"}, "registered as host_1"),
    (
        "Registered",
        {"host_id": "host_1", "new": True, "state_file": "f", "bond_uusd": 10_000_000},
        "registered as host_1, with a bond of 1,000.00 credits",
    ),
    ("Connected", {"host_id": "host_1", "resumed": 2}, "2 jobs resumed"),
    ("JobStarted", {"job_id": "job_1", "model": "m", "kind": "chat"}, ""),
    ("JobDone", {"job_id": "job_1", "state": "done", "earned_uusd": 441, "tokens": 5, "balance_uusd": 1441}, "+0.0441"),
    (
        "JobDone",
        {
            "job_id": "job_3", "state": "failed", "earned_uusd": 0, "tokens": 0, "balance_uusd": 1441, "promo_uusd": 1400,
        },
        "balance 0.1441 (0.14 promotional)",
    ),
    ("JobStarted", {"job_id": "job_2", "model": "m", "kind": "chat"}, ""),
    ("JobFailed", {"job_id": "job_2", "code": "c", "message": "out of memory", "fault": "host"}, "out of memory"),
    ("Reconnecting", {"in_s": 0.5, "why": "cut"}, "retrying in 500 ms"),
    ("OfferChanged", {"models": []}, "offers now: nothing"),
    ("Draining", {"open": 1}, "1 jobs finish first"),
    ("Stopped", {"abandoned": 0}, "stopped"),
]  # fmt: skip


class TestWords:
    @pytest.mark.parametrize(("kind", "facts", "part"), EVENTS)
    def test_each_event_has_its_line(self, kind: str, facts: dict[str, Any], part: str) -> None:
        line = format_event(kind, facts)

        assert part in line
        assert bool(line) == bool(part)


def shown(board: Board) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(board.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(text: str, first: str) -> list[list[str]]:
    """Return the cells of the rows of tables that begin with a word."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines() if line.startswith(f"{first} ")]


class TestUsualPrices:
    def test_programs_are_sold_at_what_is_usual_where_their_owner_names_no_price(self) -> None:
        """Sold by a unit that has none, they would be refused; for nothing, they would be given away."""
        usual = {unit.name: unit.usual_rate for kind in Kinds() if kind.files for unit in kind.units}
        assert usual and all(usual.values()), usual

    def test_the_owners_price_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[WorkerConfig] = []

        async def run(config: WorkerConfig, **_: Any) -> None:
            asked.append(config)

        monkeypatch.setattr(sys.modules["comptoir.cli.host"], "run_worker", run)
        CliRunner().invoke(
            program, ["host", "--engine", "python", "--unit-price", "second=0.5"], catch_exceptions=False
        )

        assert (asked[0].prices["wall_ms"], asked[0].prices["cpu_ms"]) == (500_000_000, 40_000)


class TestBoard:
    def test_several_engines_are_a_table_with_what_each_earned(self) -> None:
        board = Board("http://post")
        prices = {"python": {"python": {"cpu_ms": 40_000, "wall_ms": 20_000}}, "ffmpeg": {"ffmpeg": {"video_ms": 0}}}
        for name, offers in prices.items():
            board.take("EngineReady", {"engine": name, "models": [name], "prices": offers})
        board.take(
            "EngineReady", {"engine": "demo", "models": ["m"], "prices": {"m": {"token_in": 0, "token_out": 10**6}}}
        )
        board.take("EngineSkipped", {"engine": "whisper", "why": "no model"})
        done = {"job_id": "job_1", "state": "done", "earned_uusd": 30, "balance_uusd": 90}
        board.take("JobDone", {**done, "kind": "python", "tokens": 1_500})
        board.take("JobDone", {**done, "kind": "ffmpeg", "tokens": 60_000, "earned_uusd": 60})

        text = shown(board)

        assert rows(text, "python") == [
            ["python", "python", "0.004 credits a CPU second and 0.002 credits a second"],
            ["python", "1", "1.5 seconds", "90", "+0.003"],
        ]
        assert rows(text, "ffmpeg")[0] == ["ffmpeg", "ffmpeg", "free"]
        assert rows(text, "demo") == [["demo", "m", "free in, $1.00/M out"]]
        assert rows(text, "whisper") == [["whisper", "skipped", "no model"]]
        assert board.summary() == [
            "earned with ffmpeg: 1 jobs, 60 seconds of video, +0.006 credits",
            "earned with python: 1 jobs, 1.5 seconds, +0.003 credits",
        ]

    def test_it_sums_what_was_earned(self) -> None:
        board = Board("http://post")
        for kind, facts, _ in EVENTS:
            board.take(kind, facts)

        text = shown(board)

        assert (board.jobs_done, board.jobs_failed, board.running) == (1, 1, set())
        assert (board.earned_uusd, board.balance_uusd) == (441, 1441)
        assert "0.0441 credits" in text and "2x H100" in text and "stopped" in text
        assert "0.14 of it: buys, never leaves" in text

    def test_a_container_is_shown_by_its_runs(self) -> None:
        board = Board("http://post")
        done = {"job_id": "job_1", "state": "done", "earned_uusd": 2000, "tokens": 1, "balance_uusd": 2000}
        board.take(
            "EngineReady", {"engine": "container", "models": ["shout"], "prices": {"shout": {"run": 2_000_000_000}}}
        )
        board.take("JobDone", {**done, "kind": "container"})

        text = shown(board)

        assert rows(text, "container") == [
            ["container", "shout", "0.20 credits a run"],
            ["container", "1", "1 run", "60", "+0.20"],
        ]
        assert "tokens" not in text
        assert "1 run, +0.20 credits" in format_event("JobDone", {**done, "kind": "container"})

    def test_a_kind_that_does_not_ship_is_shown_in_its_own_unit(self) -> None:
        board = Board("http://post", KINDS)
        ready = {
            "engine": "scribe",
            "models": ["scribe"],
            "first_token_s": 0.5,
            "tokens_per_s": 80.0,
            "goes_on_by": "",
            "prices": {"scribe": {"byte": 200_000}},
        }
        done = {"job_id": "job_1", "state": "done", "earned_uusd": 600, "tokens": 3000, "balance_uusd": 600}
        board.take("EngineReady", ready)
        board.take("JobDone", {**done, "kind": "letters"})

        text = shown(board)

        said = "scribe (0.02 credits per kilobyte)"
        assert rows(text, "scribe") == [["scribe", "scribe", "0.02 credits per kilobyte"]]
        assert rows(text, "letters") == [["letters", "1", "3,000 bytes", "180,000", "+0.06"]]
        assert "tokens" not in text
        assert (
            format_event("EngineReady", ready, KINDS)
            == f"engine scribe is ready: {said} (80 bytes/s, first after 500 ms)"
        )
        assert "job_1 done: 3,000 bytes, +0.06 credits" in format_event("JobDone", {**done, "kind": "letters"}, KINDS)

    @pytest.mark.parametrize("state", ["failed", "lost", "done"])
    def test_a_balance_that_nobody_told_is_not_said(self, state: str) -> None:
        """A lease that earned nothing comes without one, and 0.00 would be another's."""
        board = Board("http://post")
        earned = {"job_id": "job_1", "state": "done", "earned_uusd": 441, "tokens": 5, "balance_uusd": 1441}
        nothing = {"job_id": "job_2", "state": state, "earned_uusd": 0, "tokens": 0, "balance_uusd": 0}
        board.take("JobDone", earned)
        board.take("JobDone", nothing)

        assert format_event("JobDone", nothing) == f"job_2 {state}: 0 tokens, +0.00 credits"
        assert board.balance_uusd == 1441 and "0.1441" in shown(board)

    def test_the_pay_of_a_step_is_no_second_run(self) -> None:
        board = Board("http://post")
        done = {
            "job_id": "job_1",
            "state": "done",
            "earned_uusd": 0,
            "tokens": 1,
            "balance_uusd": 0,
            "kind": "container",
        }
        paid = {"job_id": "job_1", "state": "paid", "earned_uusd": 2000, "tokens": 0, "balance_uusd": 2000}
        board.take("JobDone", done)
        board.take("JobDone", paid)

        assert (board.jobs_done, board.earned_uusd) == (1, 2000)
        assert board.summary() == ["earned with container: 1 jobs, 1 run, +0.20 credits"]
        assert format_event("JobDone", paid) == "job_1 paid: +0.20 credits, balance 0.20"

    def test_a_name_from_outside_is_no_markup(self) -> None:
        board = Board("http://post")
        board.take("HardwareFound", {"gpu": "[bold]GPU[/oops]\x1b[31m", "vram_mib": 0})

        assert "[bold]GPU[/oops][31m" in shown(board)


class TestLocalWorker:
    @pytest.mark.parametrize("allowed", [False, True])
    def test_it_fetches_inputs_from_this_network_only_where_orders_may_name_them(self, allowed: bool) -> None:
        settings = Settings(allow_private_endpoint_urls=allowed)

        arguments = _worker_arguments(settings, ["demo"], discover=False)

        assert ("--private-inputs" in arguments) is allowed
