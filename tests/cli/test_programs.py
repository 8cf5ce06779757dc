"""``comptoir run python`` and ``comptoir run ffmpeg``: what their options order, and both from one real host."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.cli.work import command
from comptoir.cli.work.order import WorkOrder
from comptoir.kinds import Kinds
from comptoir.worker.engines.ffmpeg.program import find_program
from tests.cli.conftest import Invoke, Program, Up

CODE = "print(1)"


@pytest.fixture
def order(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return what a command line orders, without buying it."""
    found: list[WorkOrder] = []
    monkeypatch.setattr(command, "buy", lambda order, *_, **__: found.append(order))

    def ordered(*words: str, input: str | None = None) -> WorkOrder:
        result = invoke("run", *words, input=input)
        assert result.exit_code == 0, result.output
        return found.pop()

    return ordered


@pytest.fixture
def files(tmp_path: Path) -> None:
    """What the command lines name."""
    (tmp_path / "job.py").write_text(CODE)
    (tmp_path / "data.csv").write_text("1\n")
    (tmp_path / "all.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "large.py").write_text("#" * 300_000)
    (tmp_path / "requirements.txt").write_text("# what it needs\nnumpy>=2  # arrays\n\npandas\n")
    (tmp_path / "in.json").write_text('{"n": 3}')


FILE = "file_" + "1" * 32


class TestPython:
    @pytest.mark.parametrize(
        ("words", "body", "inputs"),
        [
            ("job.py", {"code": CODE}, []),
            ("job.py a -i data.csv b", {"code": CODE, "args": ["a", "b"]}, ["data.csv"]),
            ("job.py -- --deep -x", {"code": CODE, "args": ["--deep", "-x"]}, []),
            ("-c print(1) a b", {"code": CODE, "args": ["a", "b"]}, []),
            ("-", {"code": "from a pipe"}, []),
            ("all.tar.gz", {"program": "all.tar.gz"}, ["all.tar.gz"]),
            ("large.py", {"program": "large.py"}, ["large.py"]),
            (FILE, {"program": FILE}, [FILE]),
            ("x=all.tar.gz", {"program": "x"}, ["all.tar.gz"]),
            ("https://a.example/b/job.zip", {"program": "job.zip"}, ["https://a.example/b/job.zip"]),
            ("job.py -r torch -r requirements.txt", {"code": CODE, "requirements": ["torch", "numpy>=2", "pandas"]}, []),
            ("job.py --call @in.json", {"code": CODE, "input": {"n": 3}}, []),
            ("job.py --call null", {"code": CODE, "input": None}, []),
            ("job.py --stdin data.csv", {"code": CODE, "stdin": "1\n"}, []),
            ("job.py --entrypoint :run --output *.png", {"code": CODE, "entrypoint": ":run", "outputs": ["*.png"]}, []),
            (
                "job.py --wall 5 --cpu 9 --cores 2 --memory 512 --disk 7 --processes 3",
                {
                    "code": CODE,
                    "limits": {
                        "wall_s": 5, "cpu_s": 9, "cores": 2, "memory_mib": 512, "disk_mib": 7, "processes": 3,
                    },
                },
                [],
            ),
            (
                "job.py --network --builds --unsandboxed-ok",
                {"code": CODE, "network": True, "builds": True, "unsandboxed_ok": True},
                [],
            ),
        ],
    )  # fmt: skip
    @pytest.mark.usefixtures("files")
    def test_options_become_the_order(self, order: Any, words: str, body: dict[str, Any], inputs: list[str]) -> None:
        found = order("python", *words.split(), input="from a pipe")

        assert (found.kind, found.body) == ("python", body)
        assert [str(one.path or one.file or one.url) for one in found.inputs] == inputs
        named = [one.named({"name": "f", "id": FILE, "sha256": "0" * 64} if one.path else None) for one in found.inputs]
        if "program" not in body or body["program"] in (FILE, "job.zip"):
            assert Kinds().get("python").check(json.dumps(body | {"inputs": named}).encode()) == ""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ("", "there is no program"),
            ("nowhere.py", "nowhere.py can't be read"),
            ("job.py -r nowhere.txt", "nowhere.txt can't be read"),
            ("job.py --call {", "is no JSON"),
            ("job.py -r numpy==1;x", "requirements[0]"),
            ("job.py --entrypoint ../x.py", "entrypoint"),
        ],
    )
    @pytest.mark.usefixtures("files")
    def test_what_can_not_be_is_said_before_anything_is_sent(self, invoke: Invoke, words: str, says: str) -> None:
        result = invoke("run", "python", *words.split(), "--url", "http://127.0.0.1:9")

        assert (result.exit_code, says in result.output) == (2, True), result.output


class TestFfmpeg:
    @pytest.mark.parametrize(
        ("words", "body"),
        [
            ("data.csv", {}),
            ("data.csv -f webm --resolution 640x360", {"output_format": "webm", "resolution": "640x360"}),
            ("data.csv -f gif --fps 12 -- -ss 3", {"output_format": "gif", "fps": 12.0, "custom_args": ["-ss", "3"]}),
            (
                "data.csv --codec h265 --preset slow --crf 0 --audio-codec aac --audio-bitrate 96k --seconds-max 60",
                {
                    "codec": "h265", "preset": "slow", "crf": 0, "audio_codec": "aac", "audio_bitrate": "96k",
                    "seconds_max": 60,
                },
            ),
        ],
    )  # fmt: skip
    @pytest.mark.usefixtures("files")
    def test_options_become_the_order(self, order: Any, words: str, body: dict[str, Any]) -> None:
        found = order("ffmpeg", *words.split())

        assert (found.kind, found.body, [str(one.path) for one in found.inputs]) == ("ffmpeg", body, ["data.csv"])
        assert Kinds().get("ffmpeg").check(json.dumps(body | {"inputs": [{"file": FILE}]}).encode()) == ""

    @pytest.mark.usefixtures("files")
    def test_what_can_not_be_is_said_before_anything_is_sent(self, invoke: Invoke) -> None:
        result = invoke("run", "ffmpeg", "data.csv", "-f", "nope", "--url", "http://127.0.0.1:9")

        assert (result.exit_code, "output_format: is one of mp4" in result.output) == (2, True), result.output


@pytest.fixture(scope="module")
def host(post: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One host of both kinds, whose owner named no price."""
    known, folder = post.quickstart, tmp_path_factory.mktemp("host")
    started = Program(
        "host", "--url", known.url, "--key", known.admin_key, "--engine", "python", "--engine", "ffmpeg", "--state",
        str(folder / "state"), cwd=folder,
    )  # fmt: skip
    try:
        started.until("connected, taking jobs")
        yield started
    finally:
        started.end()


class TestBoth:
    def test_they_are_bought_from_one_host_that_says_what_each_earned(
        self, ask: Invoke, host: Program, tmp_path: Path
    ) -> None:
        (tmp_path / "data.csv").write_text("1\n2\n3\n")
        (tmp_path / "job.py").write_text(
            "n = sum(map(int, open('data.csv')))\nprint('sum', n)\nopen('sum.txt', 'w').write(str(n))"
        )
        program = ask("run", "python", "job.py", "--input", "data.csv", "--wall", "20")
        asyncio.run(make_film(tmp_path / "in.mp4"))
        film = ask("run", "ffmpeg", "in.mp4", "--output-format", "webm", "--resolution", "32x24", "--out", "films")

        assert (program.exit_code, program.stdout) == (0, "sum 6\n"), program.output
        assert (tmp_path / "sum.txt").read_text() == "6"
        assert (film.exit_code, film.stdout) == (0, ""), film.output
        assert (tmp_path / "films" / "in.webm").read_bytes().startswith(b"\x1aE\xdf\xa3")
        assert "buy with: comptoir run ffmpeg …, comptoir run python …" in ask("models").stdout
        host.stop()
        assert "python (0.004 credits a CPU second and 0.002 credits a second)" in host.text
        assert "earned with python: 1 jobs, " in host.text and "earned with ffmpeg: 1 jobs, " in host.text


async def make_film(path: Path) -> None:
    """Make a second of moving picture."""
    made = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-pix_fmt", "yuv420p", str(path))
    running = await asyncio.create_subprocess_exec(find_program().ffmpeg, "-v", "error", *made)
    assert await running.wait() == 0
