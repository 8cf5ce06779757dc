"""``comptoir run KIND``: upload, order, watch, cancel and save, against a running post with a toy kind of programs."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit
from comptoir.cli.target import Target
from comptoir.cli.work import WORDS, screen
from comptoir.cli.work.outcome import WorkOutcome
from comptoir.cli.work.screen import spent_uusd
from comptoir.kinds import Kinds
from tests.cli.conftest import WITHIN_S, Invoke, Program, Up, as_buyer, until
from tests.cli.stepping import ENGINE, TARGET, Steps
from tests.cli.test_files import Cutter


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A trading post that sells the kind, with a model, and a host of the kind."""
    folder = tmp_path_factory.mktemp("post")
    up = Up(folder, "--set", f"kinds={TARGET}")
    host: Program | None = None
    try:
        known = up.ready().quickstart
        host = Program(
            "host", "--url", known.url, "--key", known.admin_key, "--engine", ENGINE, "--kind", TARGET,
            "--unit-price", "page=0.01", "--state", str(folder / "state"), cwd=folder,
        )  # fmt: skip
        host.until("connected, taking jobs")
        yield up
    finally:
        if host is not None:
            host.end()
        up.end()


def newest(post: Up) -> dict[str, Any]:
    known = post.quickstart
    (job, *_) = Api(Target(known.url, known.key, "")).get("/house/jobs").json()["jobs"]
    return dict(job)


def steps(*taken: dict[str, Any]) -> str:
    return json.dumps({"steps": taken})


class TestRunKind:
    def test_output_goes_where_the_program_wrote_it(self, ask: Invoke) -> None:
        result = ask("run", "kind", "steps", steps({"out": "a\n"}, {"err": "b\n"}, {"page": 1}, {"out": "c"}))

        assert (result.exit_code, result.stdout) == (0, "a\nc"), result.output
        assert result.stderr.startswith("b\n") and "✓ 1 page · 1.00 credits" in result.stderr

    def test_a_result_is_printed_behind_the_output(self, ask: Invoke) -> None:
        told = ask("run", "kind", "steps", steps({"out": "a\n"}, {"result": {"n": 1}}))
        text = ask("run", "kind", "steps", steps({"result": "words"}))

        assert told.stdout == 'a\n{\n  "n": 1\n}\n'
        assert text.stdout == "words\n"

    def test_json_says_everything(self, ask: Invoke) -> None:
        result = ask("run", "kind", "steps", steps({"out": "a"}, {"err": "b"}, {"page": 1}, {"result": [1]}), "--json")

        bill = json.loads(result.stdout)
        assert (bill["stdout"], bill["stderr"], bill["result"], bill["cost_uusd"]) == ("a", "b", [1], 10_000)
        assert (bill["state"], bill["finish_reason"], bill["artifacts"]) == ("completed", "stop", [])
        assert bill["receipt"] == bill["job"].replace("job_", "rcpt_")

    def test_a_job_that_failed_is_said_and_fails(self, ask: Invoke) -> None:
        result = ask("run", "kind", "steps", steps({"page": 1}, {"fail": "no ink"}))

        assert result.exit_code == Exit.REFUSED
        assert "the job failed: no ink (fault: buyer)" in result.output and "jobs show job_" in result.output

    def test_a_program_that_failed_by_its_own_doing_is_said_and_fails(self, ask: Invoke) -> None:
        """Its host did what was asked and is paid, so the job is completed."""
        failed = {"reason": "exit", "message": "it ended with 3", "exit_code": 3}
        result = ask("run", "kind", "steps", steps({"page": 1}, {"failed": failed}, {"finish": "exit"}))

        assert result.exit_code == Exit.REFUSED
        assert "✗ the program failed: it ended with 3\n  you paid 1.00 credits" in result.output, result.output

    def test_what_a_host_says_can_not_move_the_terminal(self, ask: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
        result = ask("run", "kind", "steps", steps({"out": "a\x1b[2Jb\n"}, {"progress": {"note": "\x1b]0;x\x07"}}))

        assert "a[2Jb" in result.output and "\x1b[2J" not in result.output and "\x1b]0" not in result.output

    @pytest.mark.parametrize("said", ["\x1b[2Jx\x9b1m", {"n": "\x9b2Jx"}], ids=["text", "JSON"])
    def test_nor_can_what_it_returns_or_why_it_failed(
        self, ask: Invoke, monkeypatch: pytest.MonkeyPatch, said: object
    ) -> None:
        piped = ask("run", "kind", "steps", steps({"result": said}))
        monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
        result = ask("run", "kind", "steps", steps({"result": said}))
        failed = ask("run", "kind", "steps", steps({"fail": "\x1b[2Jno\x9b1m ink"}))

        assert "\x9b" in piped.stdout, "a pipe gets every character"
        assert "2Jx" in result.output and "\x9b" not in result.output and "\x1b[2J" not in result.output
        assert "[2Jno1m ink" in failed.output and "\x9b" not in failed.output and "\x1b[2J" not in failed.output

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (("steps", "{"), 2, "is no JSON"),
            (("steps", "[]"), 2, "the body is no JSON object"),
            (("steps", "@nowhere.json"), 2, "nowhere.json can't be read"),
            (("steps", "--input", "nowhere.csv"), 2, "nowhere.csv can't be read: No such file"),
            (("steps", "--input", "."), 2, ". is a folder"),
            (("steps", "--input", "file_" + "0" * 32), 1, "file"),
            (("steps", "{}", "--model", "nope"), 1, "nope"),
            (("steps", "{}", "--out", "taken"), 2, "taken is no folder"),
            (("weaving",), 1, "nobody sells weaving at http"),
        ],
    )
    def test_what_can_not_be_is_said(
        self, ask: Invoke, tmp_path: Path, words: tuple[str, ...], code: int, says: str
    ) -> None:
        (tmp_path / "taken").write_text("")
        result = ask("run", "kind", *words)

        assert (result.exit_code, says in result.output) == (code, True), result.output


class TestWords:
    def test_a_question_stays_a_question(self, ask: Invoke) -> None:
        """A word is only a kind's where it comes first: as a question through a pipe, as a model behind --model."""
        assert ask("run", "--max-tokens", "1", "python").stdout == " tok\n"
        assert ask("run", "--max-tokens", "1", input="python").stdout == " tok\n"
        assert "python" in ask("run", "--model", "python", "hi").output

    def test_a_kind_that_stands_too_late_is_told_where_it_belongs(self, ask: Invoke) -> None:
        result = ask("run", "--json", "python", "job.py")

        assert (result.exit_code, "its kind comes first: comptoir run python" in result.output) == (2, True)

    def test_help_lists_the_kinds(self, ask: Invoke) -> None:
        said = ask("run", "--help").output
        assert all(f"  {entry.word} " in said and entry.help[:40] in said for entry in WORDS)


class TestInputs:
    def test_a_file_is_uploaded_under_its_name_or_another(self, ask: Invoke, post: Up, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("a,b\n")
        (tmp_path / "a=b.txt").write_text("c")
        result = ask(
            "run", "kind", "steps", steps({"body": 1}), "--input", "data.csv", "--input", "other=data.csv", "-i", "a=b.txt",
            "-i", "https://example.org/a=b", "--json",
        )  # fmt: skip

        inputs = json.loads(result.stdout)["result"]["inputs"]
        assert [each.get("name") for each in inputs] == ["data.csv", "other", "a=b.txt", None]
        assert inputs[0]["sha256"] == inputs[1]["sha256"] == sha256(b"a,b\n").hexdigest()
        assert inputs[0]["file"] == inputs[1]["file"], "the same file is sent once"
        assert inputs[3] == {"url": "https://example.org/a=b"}


def made(name: str, text: str) -> dict[str, Any]:
    return {"artifact": {"name": name, "text": text}}


def there(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


class TestResults:
    def test_they_come_into_the_folder(self, ask: Invoke, tmp_path: Path) -> None:
        (tmp_path / "in.txt").write_text("of the buyer")
        result = ask("run", "kind", "steps", steps({"copy": 0}, made("b.txt", "b")), "-i", "in.txt", "--out", "a/b")

        assert result.exit_code == 0, result.output
        assert there(tmp_path / "a" / "b") == {"copy-0.txt": "of the buyer", "b.txt": "b"}
        assert "→ a/b/copy-0.txt 12 bytes" in result.stderr

    def test_json_says_where_they_are(self, ask: Invoke, tmp_path: Path) -> None:
        (found,) = json.loads(ask("run", "kind", "steps", steps(made("a.txt", "a")), "--json").stdout)["artifacts"]

        assert (found["path"], found["sha256"], found["said"]) == ("a.txt", sha256(b"a").hexdigest(), "")
        assert (tmp_path / "a.txt").read_text() == "a"

    def test_nothing_is_written_over_without_a_word(self, ask: Invoke, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("mine")
        taken = steps(made("a.txt", "new"), made("b.txt", "1"), made("b.txt", "2"))

        first = ask("run", "kind", "steps", taken)
        again = ask("run", "kind", "steps", taken)
        forced = ask("run", "kind", "steps", taken, "--force")

        kept = {"a.txt": "mine", "a-2.txt": "new", "b.txt": "1", "b-2.txt": "2"}
        assert "a.txt was there already: this one is a-2.txt" in first.stderr
        assert again.exit_code == 0 and forced.exit_code == 0
        assert there(tmp_path) == kept | {"a.txt": "new"}

    def test_a_host_can_not_hide_a_file(self, ask: Invoke, tmp_path: Path) -> None:
        ask("run", "kind", "steps", steps(made(".bashrc", "x")))

        assert there(tmp_path) == {"_.bashrc": "x"}

    def test_what_was_delivered_before_ctrl_c_is_kept(
        self, post: Up, programs: Callable[..., Any], tmp_path: Path
    ) -> None:
        taken = steps(made("a.txt", "whole"), {"out": "working\n"}, {"wait": str(tmp_path / "never")})
        run = programs(Program, "run", "kind", "steps", taken, cwd=tmp_path, env=as_buyer(post))
        run.until("working")

        assert run.stop(signal.SIGINT) == Exit.INTERRUPTED
        assert there(tmp_path) == {"a.txt": "whole"}

    def test_those_of_a_host_that_was_lost_are_none(self, ask: Invoke, tmp_path: Path) -> None:
        ask("run", "kind", "steps", steps(made("a.txt", "old"), {"begun_again": True}, made("b.txt", "new")))

        assert there(tmp_path) == {"b.txt": "new"}

    def test_a_job_that_ended_otherwise_than_well_shows_it_in_the_list(self, ask: Invoke) -> None:
        ask("run", "kind", "steps", steps({"page": 1}, {"finish": "wall"}))

        assert "completed (wall)" in ask("jobs", "--limit", "1").stdout

    def test_what_is_on_offer_says_how_it_is_bought(self, ask: Invoke) -> None:
        assert "buy with: comptoir run kind steps '{…}'" in ask("models").stdout

    def test_jobs_show_lists_them(self, ask: Invoke, tmp_path: Path) -> None:
        (tmp_path / "in.txt").write_text("of the buyer")
        ran = ask("run", "kind", "steps", steps(made("a.txt", "a")), "-i", "in.txt", "--json")
        shown = ask("jobs", "show", json.loads(ran.stdout)["job"]).stdout

        assert re.search(r"^input +in\.txt \(file_[0-9a-f]{32}, 12 bytes\) *$", shown, re.MULTILINE), shown
        assert re.search(r"^made +a\.txt \(file_[0-9a-f]{32}, 1 bytes\) *$", shown, re.MULTILINE), shown


class TestFollow:
    def test_a_stream_that_is_cut_goes_on_behind_the_last_piece(self, post: Up, invoke: Invoke, tmp_path: Path) -> None:
        """The rest comes only once the connection was cut, so it must come over another one."""
        cutter = Cutter(int(post.quickstart.url.rpartition(":")[2]), cuts=1, after_bytes=6_000)
        lines = [f"{number:0500}\n" for number in range(20)]
        until_cut = tmp_path / "cut"

        def when_cut() -> None:
            until(lambda: cutter.left < 1)
            until_cut.touch()

        opener = threading.Thread(target=when_cut)
        opener.start()
        try:
            taken = steps(*({"out": line} for line in lines), {"wait": str(until_cut)}, {"out": "end\n"})
            env = {"COMPTOIR_URL": cutter.url, "COMPTOIR_KEY": post.quickstart.key}
            result = invoke("run", "kind", "steps", taken, **env)
        finally:
            cutter.left = 0
            opener.join()
            cutter.close()

        assert (result.exit_code, result.stdout) == (0, "".join(lines) + "end\n"), result.output

    def test_what_another_host_writes_again_is_shown_once(self, ask: Invoke) -> None:
        again = ({"out": "a\nb\n"}, {"page": 1}, {"begun_again": True}, {"out": "a\n"}, {"out": "b\nc\n"}, {"page": 1})
        result = ask("run", "kind", "steps", steps(*again))

        assert (result.exit_code, result.stdout) == (0, "a\nb\nc\n")
        assert "another one began again from the start" in result.stderr and "lost host wrote" not in result.stderr

    def test_what_another_host_writes_otherwise_is_told_whole(self, ask: Invoke) -> None:
        again = ({"out": "seed 1\n"}, {"result": 1}, {"begun_again": True}, {"out": "seed 2\n"})
        result = ask("run", "kind", "steps", steps(*again))

        assert result.stdout == "seed 1\nseed 2\n"
        assert "it is not what the lost host wrote" in result.stderr
        told = json.loads(ask("run", "kind", "steps", steps(*again), "--json").stdout)
        assert (told["result"], told["begun_again"]) == (None, 1)

    def test_who_leaves_a_job_can_come_back_to_it(self, ask: Invoke) -> None:
        job = ask("run", "kind", "steps", steps({"out": "a\n"}, {"page": 1}), "--detach").stdout.strip()

        followed = ask("jobs", "follow", job)
        assert (followed.exit_code, followed.stdout) == (0, "a\n"), followed.output
        assert "✓ 1 page" in followed.stderr
        assert ask("jobs", "follow", "job_" + "0" * 32).exit_code == Exit.REFUSED


class TestInterrupt:
    def test_ctrl_c_cancels_the_job_and_says_what_it_cost(
        self, post: Up, programs: Callable[..., Any], tmp_path: Path
    ) -> None:
        never = steps({"page": 1}, {"out": "working\n"}, {"wait": str(tmp_path / "never")})
        run = programs(Program, "run", "kind", "steps", never, cwd=tmp_path, env=as_buyer(post))
        run.until("working")

        assert run.stop(signal.SIGINT) == Exit.INTERRUPTED
        assert "■ cancelled · 1 page · 1.00 credits" in run.text, run.text
        assert newest(post)["state"] == "cancelled"

    def test_a_reader_that_leaves_cancels_the_job(self, post: Up, tmp_path: Path) -> None:
        """``comptoir run … | head -n 1``: nobody is there for the rest."""
        more = tmp_path / "more"
        taken = steps(
            {"out": "first\n"}, {"wait": str(more)}, *({"out": "x" * 1_000},) * 50, {"wait": str(tmp_path / "no")}
        )
        command = [sys.executable, "-m", "comptoir", "run", "kind", "steps", taken]
        with subprocess.Popen(command, cwd=tmp_path, env=as_buyer(post), stdout=subprocess.PIPE) as run:
            assert run.stdout is not None and run.stdout.readline() == b"first\n"
            run.stdout.close()
            more.touch()
            run.wait(WITHIN_S)

        assert newest(post)["state"] == "cancelled"

    def test_ctrl_c_leaves_a_job_that_is_only_looked_at(
        self, post: Up, programs: Callable[..., Any], tmp_path: Path, ask: Invoke
    ) -> None:
        taken = steps({"out": "working\n"}, {"wait": str(tmp_path / "go")}, {"out": "done\n"})
        job = ask("run", "kind", "steps", taken, "--detach").stdout.strip()
        look = programs(Program, "jobs", "follow", job, cwd=tmp_path, env=as_buyer(post))
        look.until("working")

        assert look.stop(signal.SIGINT) == Exit.INTERRUPTED
        assert newest(post)["state"] == "running"
        (tmp_path / "go").touch()
        assert ask("jobs", "follow", job).stdout == "working\ndone\n"


class TestSpent:
    """What it costs as it runs, of a job as the server has it."""

    PRICES = [{"unit": "page", "uusd_per_million": 2_000_000, "per": 1, "words": "per page"}]

    @pytest.mark.parametrize(
        ("kind", "attempts", "progress", "spent"),
        [
            ("steps", [], {}, None),
            ("steps", [(0, None)], {}, 6),  # What its frames counted: three pages.
            ("steps", [(0, None)], {"count": 10}, 20),  # What its host says that it has made.
            ("steps", [(5, 1), (0, None)], {"count": 10}, 25),
            ("steps", [(2, 1), (0, None)], {}, 6),  # The first of the three pages was the lost host's.
            ("steps", [(5, 1)], {}, 5),
            ("timely", [(0, None)], {}, 14),  # Seven milliseconds of work.
        ],
    )
    def test_it_is_what_was_paid_and_the_open_hosts_work(
        self, kind: str, attempts: list[Any], progress: Any, spent: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(screen, "SHIPPED", Kinds((Timely,)))
        outcome = WorkOutcome()
        outcome.take({"count": 3, "extra": {"progress": progress}})
        rows = [
            {"paid_uusd": paid, "ended_ms": ended, "prices": self.PRICES, "units": [{"count": 1}]}
            for paid, ended in attempts
        ]

        assert spent_uusd({"kind": kind, "attempts": rows}, outcome, running_ms=7) == spent


class Timely(Steps):
    """Sold by its time."""

    name = "timely"
    timed = True
