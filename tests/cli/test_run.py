"""``comptoir run``: against the real thing, and against servers that misbehave."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comptoir.cli import ending, run
from comptoir.cli.answer import StreamReply
from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.harmless import harmless
from comptoir.cli.target import Target
from tests.cli.conftest import Invoke, Program, Up, as_buyer, known_but_not_here, until, worker_pid
from tests.cli.gate import FRAMES, OPEN, PROMPT, Gate, told

Start = Callable[..., Any]


class TestRun:
    def test_the_answer_alone_is_on_standard_output(self, ask: Invoke) -> None:
        result = ask("run", "--max-tokens", "3", "hi")

        assert result.exit_code == 0
        assert result.stdout == " tok tok tok\n"
        # 3 tokens at $1 a million.
        assert "1 + 3 tokens · 0.0003 credits · first token" in result.stderr
        assert "receipt rcpt_" in result.stderr

    def test_json_says_everything(self, ask: Invoke) -> None:
        bill = json.loads(ask("run", "--json", "--max-tokens", "3", "hi").stdout)

        assert (bill["text"], bill["model"], bill["finish_reason"]) == (" tok tok tok", "trivial", "stop")
        assert (bill["prompt_tokens"], bill["completion_tokens"], bill["cost_uusd"]) == (1, 3, 3)
        assert (bill["state"], bill["receipt"]) == ("completed", bill["job"].replace("job_", "rcpt_"))
        assert bill["host"].startswith("host_")
        assert 0 < bill["first_token_s"] <= bill["total_s"]

    def test_the_answer_is_kept_when_its_server_stops_before_the_cost_is_read(
        self, ask: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        get = Api.get

        def stopped(api: Api, path: str) -> Any:
            if path.startswith("/house/jobs/"):
                raise Failure("nobody answers", code=Exit.UNREACHABLE)
            return get(api, path)

        monkeypatch.setattr(Api, "get", stopped)
        monkeypatch.setattr(ending, "SETTLE_WAIT_S", 0.0)

        result = ask("run", "--json", "--max-tokens", "3", "hi")

        bill = json.loads(result.stdout)
        assert (result.exit_code, bill["text"], bill["cost_uusd"], bill["completion_tokens"]) == (
            0,
            " tok tok tok",
            None,
            3,
        )

    @pytest.mark.parametrize("arguments", [(), ("-",)])
    def test_a_prompt_comes_through_a_pipe(self, ask: Invoke, arguments: tuple[str, ...]) -> None:
        assert ask("run", "--max-tokens", "1", *arguments, input="a long prompt\n").stdout == " tok\n"

    def test_what_was_bought_can_be_looked_at_and_proved(self, ask: Invoke, tmp_path: Path) -> None:
        bill = json.loads(ask("run", "--json", "hi").stdout)

        assert bill["job"] in ask("jobs").output
        shown = ask("jobs", "show", bill["job"]).output
        assert "completed" in shown and bill["receipt"] in shown and bill["host"] in shown
        assert bill["host"] in ask("receipt", "show", bill["receipt"]).output
        (tmp_path / "r.json").write_text(ask("receipt", "show", bill["receipt"], "--json").stdout)
        (tmp_path / "k.json").write_text(ask("keys", "--json").stdout)
        assert "good" in ask("receipt", "verify", "r.json", "--keys", "k.json").output
        assert ask("receipt", "verify", "r.json").exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("--model", "nope", "hi"), 1, "trivial"),
            (("--temperature", "9", "hi"), 2, "--temperature"),
            (("--max-tokens", "0", "hi"), 2, "--max-tokens"),
            (("",), 2, "the prompt is empty"),
            (("  ",), 2, "the prompt is empty"),
        ],
    )
    def test_what_can_not_be_is_said(self, ask: Invoke, arguments: tuple[str, ...], code: int, words: str) -> None:
        result = ask("run", *arguments)

        assert result.exit_code == code
        assert words in result.output


def delivered(api: Api) -> list[int]:
    """Return how many tokens each job has delivered, the newest first."""
    return [job["completion_tokens"] for job in api.get("/house/jobs").json()["jobs"]]


class TestStop:
    """What becomes of open answers when their coordinator is told to stop."""

    def start(self, folder: Path, programs: Start, gate: Gate) -> tuple[Up, Api]:
        up = programs(Up, folder, "--set", "drain_s=600", "--set", "lease_s=600", engine=gate.engine).ready()
        return up, Api(Target(up.quickstart.url, up.quickstart.key, ""))

    def ask(self, folder: Path, programs: Start, up: Up, *more: str) -> Program:
        run: Program = programs(Program, "run", *more, PROMPT, cwd=folder, env=as_buyer(up))
        return run

    def test_an_open_answer_survives_the_drain_and_who_waits_in_line_does_not_hold_it_up(
        self, tmp_path: Path, programs: Start
    ) -> None:
        gate = Gate(tmp_path)
        up, api = self.start(tmp_path, programs, gate)
        answered = self.ask(tmp_path, programs, up)
        until(lambda: delivered(api) == [OPEN])
        known_but_not_here(api, "gone")
        waiting = self.ask(tmp_path, programs, up, "--reconnect", "0", "--model", "gone")
        until(lambda: delivered(api) == [0, OPEN])

        up.process.send_signal(signal.SIGTERM)

        up.until("draining: 1 open answers finish first")
        gate.open()
        assert up.ended() == 0
        answered.ended()  # What it cost nobody is left to say.
        assert told(answered.text) == list(range(FRAMES)), answered.text
        assert waiting.ended() != 0
        assert "Traceback" not in up.text, up.text

    def test_a_second_signal_does_not_wait_for_it(self, tmp_path: Path, programs: Start) -> None:
        gate = Gate(tmp_path)
        up, api = self.start(tmp_path, programs, gate)
        run = self.ask(tmp_path, programs, up, "--reconnect", "0")
        until(lambda: delivered(api) == [OPEN])

        up.process.send_signal(signal.SIGINT)
        up.until("draining: 1 open answers finish first")

        up.process.send_signal(signal.SIGINT)
        assert run.ended() == 3
        # The worker would be given some seconds for an answer that has nowhere to go.
        os.kill(worker_pid(up), signal.SIGKILL)
        assert up.ended() == 0
        assert "Traceback" not in up.text, up.text
        # What was open is found again by the next start, which ends it and gives the rest of its hold back.
        again = programs(Up, tmp_path, "--no-worker")
        again.until("ready in")
        api = Api(Target(again.quickstart.url, again.quickstart.key, ""))
        assert api.get("/house/me").json()["account"]["held_uusd"] == 0
        operator = Api(Target(again.quickstart.url, again.quickstart.admin_key, ""))
        assert operator.get("/house/audit").json()["differences"] == []


class TestDemo:
    def test_a_first_start_answers_about_itself(self, tmp_path: Path, programs: Start) -> None:
        up = Program("up", "--port", "0", "--data", str(tmp_path / "data"), "--no-discover", cwd=tmp_path)
        try:
            up.until("with the OpenAI SDK")
            run = programs(Program, "run", "--data", str(tmp_path / "data"), "What is Comptoir?", cwd=tmp_path)
            assert run.ended() == 0
        finally:
            up.end()

        assert "trading post" in run.text


def sse(*events: str) -> bytes:
    return "".join(f"data: {event}\n\n" for event in events).encode()


def delta(text: str) -> str:
    return json.dumps({"model": "m", "choices": [{"index": 0, "delta": {"content": text}}]})


class TestProgress:
    def test_who_waits_sees_for_how_long_and_what_the_model_thinks(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = run.ProgressLine("m", shown=True, alone=False)
        progress.start()
        progress.began_s -= 7
        assert run.Lively(progress._waiting).__rich__().plain == "m waiting for the first token… 7 s · Ctrl-C cancels"

        progress.thought("let me ")
        progress.thought("see")
        progress.piece()
        progress.thought("too late")
        progress.stop()

        shown = capsys.readouterr()
        assert shown.err.endswith("let me see\n\n") and shown.out == ""

    def test_beside_a_pipe_the_line_alone_says_that_it_thinks(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = run.ProgressLine("m", shown=True, alone=True)
        progress.thought("let me see")

        assert run.Lively(progress._waiting).__rich__().plain.startswith("m thinking… 0 s")
        assert capsys.readouterr().err == ""

    def test_nobody_watches(self, capsys: pytest.CaptureFixture[str]) -> None:
        run.ProgressLine("m", shown=False, alone=False).thought("let me see")

        assert capsys.readouterr().err == ""

    def test_what_was_shown_is_passed_over_when_it_is_told_again(self) -> None:
        reply = StreamReply()
        told_once = [json.dumps({"choices": [{"delta": delta}]}) for delta in ({"reasoning": "hm"}, {"content": "a"})]
        assert [reply.take(one) for one in told_once] == [("", "hm"), ("a", "")]

        reply.told_again()

        assert [reply.take(one) for one in told_once] == [("", ""), ("", "")]
        assert (reply.text, reply.thoughts.text) == ("a", "hm")


class Odd(BaseHTTPRequestHandler):
    """A server that answers every question with what the test put there."""

    protocol_version = "HTTP/1.1"
    stream = b""
    length: int | None = None
    models: Any = {"models": [{"name": "m", "kinds": ["chat"]}]}

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, body: bytes, *, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._send(json.dumps(self.models).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(self.stream, length=self.length)
        self.close_connection = True


@pytest.fixture
def odd() -> Iterator[tuple[type[Odd], str]]:
    """A class to put answers on, and the address that gives them."""
    kind = type("OddNow", (Odd,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield kind, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class TestOddServers:
    def test_any_openai_compatible_server_will_do(self, odd: tuple[type[Odd], str], invoke: Invoke) -> None:
        kind, url = odd
        kind.stream = b": ping\n\n" + sse(
            delta("a"), delta("b"), '{"choices":[],"usage":{"completion_tokens":2}}', "[DONE]"
        )

        result = invoke("run", "--url", url, "--model", "m", "hi")

        assert (result.exit_code, result.stdout) == (0, "ab\n")

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
    def test_what_the_model_thinks_is_apart_from_what_it_says(
        self, odd: tuple[type[Odd], str], invoke: Invoke, name: str
    ) -> None:
        kind, url = odd
        thoughts = [json.dumps({"choices": [{"delta": {name: text, "content": None}}]}) for text in ("let me ", "see")]
        kind.stream = sse(*thoughts, delta("a"), delta("b"), "[DONE]")

        assert invoke("run", "--url", url, "--model", "m", "hi").stdout == "ab\n"
        bill = json.loads(invoke("run", "--json", "--url", url, "--model", "m", "hi").stdout)
        assert (bill["text"], bill["reasoning"]) == ("ab", "let me see")

    def test_an_error_event_ends_it_with_the_reason(self, odd: tuple[type[Odd], str], invoke: Invoke) -> None:
        kind, url = odd
        kind.stream = sse(delta("a"), '{"error":{"message":"the host was lost"}}', "[DONE]")

        result = invoke("run", "--url", url, "hi")

        assert result.exit_code == 1
        assert "the answer ended early: the host was lost" in result.stderr
        assert result.stdout == "a\n"

    @pytest.mark.parametrize("missing", [0, 100])
    def test_a_stream_that_breaks_off_is_never_taken_for_whole(
        self, odd: tuple[type[Odd], str], invoke: Invoke, missing: int
    ) -> None:
        kind, url = odd
        kind.stream = sse(delta("a"))
        kind.length = len(kind.stream) + missing

        result = invoke("run", "--url", url, "hi")

        assert result.exit_code == 3
        assert "✗ the connection" in result.stderr

    def test_something_else_than_json_is_said(self, odd: tuple[type[Odd], str], invoke: Invoke) -> None:
        kind, url = odd
        kind.stream = sse("<html>")

        assert "sent something other than JSON" in invoke("run", "--url", url, "hi").stderr

    def test_no_model_says_how_to_add_one(self, odd: tuple[type[Odd], str], invoke: Invoke) -> None:
        kind, url = odd
        kind.models = {"models": [{"name": "e", "kinds": ["embedding"]}]}

        result = invoke("run", "--url", url, "hi")

        assert result.exit_code == 1
        assert "comptoir host" in result.stderr


class TestHarmless:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\n\tb", "a\n\tb"),
            ("\x1b]0;title\x07", "]0;title"),
            ("\x1b[2Jx", "[2Jx"),
            ("\x9b1m", "1m"),
            ("é 漢", "é 漢"),
        ],
    )
    def test_an_answer_never_steers_the_terminal(self, text: str, shown: str) -> None:
        assert harmless(text) == shown
