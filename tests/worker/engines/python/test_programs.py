"""What a program is given, what it says, and what becomes of what it returns and leaves."""

import io
import json
import tarfile
import zipfile
from typing import Any

import pytest

from comptoir.worker.engines.base import EngineError
from tests.worker.engines.python.conftest import Run

pytestmark = pytest.mark.asyncio(loop_scope="module")


def zipped(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def tarred(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in files.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(text)
            archive.addfile(facts, io.BytesIO(text.encode()))
    return made.getvalue()


VALUES = """
import datetime, decimal, enum, pathlib, uuid
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    y: float

class Colour(enum.Enum):
    RED = "red"

class Array:
    def tolist(self):
        return [[1, 2], [3.5]]

def main(given):
    return {
        "big": 2**60, "huge": 2**1023 - 1, "nan": float("nan"), "inf": [float("-inf")], "set": {3, 1, 2},
        "mixed": sorted(map(str, {1, "a"})), "tuple": (1, None, True), "bytes": b"\\xff\\x00", "half": "a\\ud800b",
        "point": Point(1, 2.5), "colour": Colour.RED, "array": Array(), "date": datetime.date(2026, 12, 1),
        "path": pathlib.Path("/work/a"), "money": decimal.Decimal("1.10"), "id": uuid.UUID(int=7),
        2: "two", None: "none", True: "true", 1.5: "float", "snow": "\\u2603", "given": given,
    }
"""


class TestReturned:
    async def test_every_value_has_one_form(self, run: Run) -> None:
        """What JSON does not know is converted as the page of the kind says, and where a value changes, it is told."""
        tried = await run(code=VALUES, input={"q": [1e300, 2**60, "é"]})

        assert tried.result == {
            "big": 2**60, "huge": 2**1023 - 1, "nan": None, "inf": [None], "set": [1, 2, 3], "mixed": ["1", "a"],
            "tuple": [1, None, True], "bytes": {"base64": "/wA="}, "half": "a\ufffdb", "point": {"x": 1, "y": 2.5},
            "colour": "red", "array": [[1, 2], [3.5]], "date": "2026-12-01", "path": "/work/a", "money": "1.10",
            "id": "00000000-0000-0000-0000-000000000007", "2": "two", "null": "none", "true": "true", "1.5": "float",
            "snow": "☃", "given": {"q": [1e300, 2**60, "é"]},
        }  # fmt: skip
        assert tried.reason == "stop" and tried.finish.usage.completion_tokens >= 1
        assert "2 values of the result were no finite numbers" in tried.err
        assert "1 texts of the result had half a surrogate pair" in tried.err

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ("[1, {'a': object()}]", "$[1].a is a object"),
            ("{(1, 2): 3}", "has a tuple as a key"),
            ("{1: 2, '1': 3}", "two keys that are '1'"),
            ("2**1024", "more than 1023 bits"),
            ("(a := [], a.append(a))[0]", "contains itself"),
        ],
    )
    async def test_what_has_none_is_a_failure_of_the_program(self, value: str, why: str, run: Run) -> None:
        """Named, and told where: nothing is dropped, and nothing breaks the worker."""
        tried = await run(code=f"def main(_): return {value}", input=None)

        assert tried.reason == "result" and why in tried.message and why in tried.err

    async def test_a_result_too_long_or_too_deep_for_a_frame_is_a_file(self, run: Run) -> None:
        code = "def main(n):\n    v = 'x' * n\n    for _ in range(60): v = [v]\n    return v"
        deep, long = await run(code=code, input=1), await run(code="def main(n): return ['é' * n]", input=300_000)

        assert json.loads(deep.files["result.json"]) is not None and deep.reason == "stop"
        assert json.loads(long.files["result.json"]) == ["é" * 300_000]
        assert long.media["result.json"] == "application/json"

    async def test_a_script_gives_its_result_once(self, run: Run) -> None:
        code = (
            "import comptoir_job as job\njob.result({'a': 1})\n"
            "try:\n    job.result(2)\nexcept RuntimeError as e:\n    print(e)"
        )
        tried = await run(code=code)

        assert tried.result == {"a": 1} and tried.out == "a result was given before\n"

    async def test_without_a_result_a_function_has_failed(self, run: Run) -> None:
        """It printed what a runner might print, and ended with 0: a result has a way of its own."""
        code = 'import os\ndef main(_):\n    print(\'{"result": "forged"}\', flush=True)\n    os._exit(0)'
        tried = await run(code=code, input=None)

        assert tried.reason == "result" and "without returning" in tried.message
        assert tried.out == '{"result": "forged"}\n' and tried.files == {}

    @pytest.mark.parametrize(
        ("line", "reason"),
        [(b'{"result": 1}\n{"result": 2}\n', "stop"), (b'{"result": 1', "result"), (b'{"result": "\xff"}\n', "result")],
    )
    async def test_the_first_whole_line_on_the_channel_counts(self, line: bytes, reason: str, run: Run) -> None:
        code = f"import os\ndef main(_):\n    os.write(3, {line!r})\n    os._exit(0)"
        tried = await run(code=code, input=None)

        assert tried.reason == reason
        if reason == "stop":
            assert tried.result == 1


class TestGiven:
    async def test_a_script_has_arguments_input_and_its_files(self, run: Run) -> None:
        code = (
            "import sys, comptoir_job\nprint(sys.argv[1:], sys.stdin.read(), __name__)\n"
            "print(open('a').read(), open(comptoir_job.inputs['b'], 'rb').read())\n"
            "try:\n    open('a', 'w')\nexcept OSError as e:\n    print(e.strerror)"
        )
        tried = await run(b"one", b"\x00two", code=code, args=["x", "--y", "z w"], stdin="typed\n")

        assert tried.out == "['x', '--y', 'z w'] typed\n __main__\none b'\\x00two'\nRead-only file system\n"
        assert tried.reason == "stop" and tried.files == {}

    @pytest.mark.parametrize("pack", [zipped, tarred])
    async def test_an_archive_runs_with_its_modules_and_data(self, pack: Any, run: Run) -> None:
        program = pack(
            {
                "main.py": "raise SystemExit('not me')",
                "job/run.py": "import near\ndef go(x):\n    return near.f(x), open('data/d.txt').read()",
                "job/near.py": "def f(x): return x + 1",
                "data/d.txt": "data",
            }
        )
        tried = await run(program, program="a", entrypoint="job/run.py:go", input=41)

        assert tried.result == [42, "data"]
        assert tried.files == {}, "what came in the archive is no result"

    async def test_a_single_file_by_its_id_is_called_main_when_its_name_is_none(self, run: Run) -> None:
        tried = await run(b"def main(x): return __file__, x", program="file_0", input=1)

        assert tried.result == ["/work/main.py", 1]

    @pytest.mark.parametrize(
        ("program", "entrypoint", "code"),
        [
            (zipped({"other.py": ""}), "", "no_program"),
            (zipped({"../up.py": "", "main.py": ""}), "", "bad_archive"),
            (b"\x1f\x8bnothing", "", "bad_archive"),
            (zipped({"main.py": "", "bomb": "0" * (16 << 20)}), "", "bad_archive"),
            (zipped({f"f{number}": "" for number in range(10_001)}), "", "bad_archive"),
        ],
    )
    async def test_an_archive_that_is_none_is_its_buyers_fault(
        self, program: bytes, entrypoint: str, code: str, run: Run
    ) -> None:
        with pytest.raises(EngineError) as raised:
            await run(program, program="a", entrypoint=entrypoint, limits={"disk_mib": 8})

        assert (raised.value.code, raised.value.fault) == (code, "buyer")

    async def test_other_pythons_of_its_own_work(self, run: Run) -> None:
        """Processes by spawn find the program again, and a child prints at once."""
        code = (
            "import multiprocessing, subprocess, sys\n"
            "def f(x): return x * x\n"
            "if __name__ == '__main__':\n"
            "    with multiprocessing.get_context('spawn').Pool(2) as pool: print(pool.map(f, [1, 2, 3]))\n"
            "    print(subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'], text=True), end='')\n"
        )
        tried = await run(code=code)

        assert (tried.out, tried.reason) == ("[1, 4, 9]\n42\n", "stop"), tried.err


class TestSaid:
    async def test_bytes_that_are_no_text_are_replaced(self, run: Run) -> None:
        code = "import os\nos.write(1, b'a\\xff\\xc3'); os.write(1, b'\\xa9z\\x00'); os.write(2, b'\\xed\\xa0\\x80')"
        tried = await run(code=code)

        assert tried.out == "a\ufffdéz\x00" and tried.err == "\ufffd" * 3

    async def test_a_failure_is_shown_where_the_program_failed(self, run: Run) -> None:
        tried = await run(code="def deep():\n    raise ValueError('bad é')\ndef main(_):\n    deep()", input=None)

        assert (tried.reason, tried.message) == ("exit", "ValueError: bad é")
        assert tried.last.failed is not None and tried.last.failed.exit_code == 1
        assert 'File "/work/main.py", line 2, in deep' in tried.err and "runner.py" not in tried.err

    @pytest.mark.parametrize(
        ("code", "exit_code", "message"),
        [
            ("raise SystemExit(3)", 3, "it ended with exit code 3"),
            ("import os; os.abort()", 134, "it ended with exit code 134 (by signal 6)"),
            ("def main(:", 1, "SyntaxError: invalid syntax (main.py, line 1)"),
            ("raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})()", 1, "E"),
        ],
    )
    async def test_each_end_has_its_words(self, code: str, exit_code: int, message: str, run: Run) -> None:
        tried = await run(code=code)

        failed = tried.last.failed
        assert failed is not None and (tried.reason, failed.exit_code, failed.message) == ("exit", exit_code, message)

    async def test_progress_is_called_or_printed(self, run: Run) -> None:
        code = (
            "import time, comptoir_job as job\njob.progress(0.25, 'loading')\ntime.sleep(1.1)\n"
            "print('Progress: 50.5 % epoch 3')\ntime.sleep(1.1)\njob.progress(float('nan')); job.progress(7, 'x' * 9999)\n"
            "time.sleep(1.1)"
        )
        tried = await run(code=code)

        assert (0.25, "loading") in tried.progress and (0.505, "epoch 3") in tried.progress
        assert (1.0, "x" * 500) in tried.progress
        counts = [each.progress.count for each in tried.extras if each.progress is not None and each.progress.count]
        assert counts == sorted(counts) and counts[-1] >= 2000, "how long it has run is told each second"
        assert "epoch 3" in tried.out, "the line is part of the log all the same"


class TestLeft:
    async def test_new_files_are_delivered_with_a_name_and_a_type(self, run: Run) -> None:
        code = (
            "import os\nos.makedirs('plots/x')\n"
            "for name in ('plots/x/a.png', 'plots_x_a.png', 'voice.wav', 'été.json', 'a\\nb', '.hidden'):\n"
            "    open(name, 'w').write(name)"
        )
        tried = await run(b"input", code=code)

        assert tried.files == {
            "plots_x_a.png": b"plots/x/a.png", "plots_x_a-2.png": b"plots_x_a.png", "voice.wav": b"voice.wav",
            "été.json": "été.json".encode(), "a_b": b"a\nb", ".hidden": b".hidden",
        }  # fmt: skip
        assert tried.media["plots_x_a.png"] == "image/png" and tried.media["a_b"] == ""
        assert tried.media["voice.wav"] in ("audio/x-wav", "audio/wav") and tried.reason == "stop"

    async def test_patterns_choose_among_them(self, run: Run) -> None:
        code = "import os\nos.mkdir('out')\nfor n in ('out/a.csv', 'b.csv', 'c.txt'): open(n, 'w').write(n)"
        chosen, none = await run(code=code, outputs=["out/*", "c.*"]), await run(code=code, outputs=[])

        assert set(chosen.files) == {"out_a.csv", "c.txt"} and none.files == {}

    async def test_what_only_looks_like_a_file_is_none(self, run: Run) -> None:
        """A link would be the host's own file, and a pipe would hang whoever reads it."""
        code = (
            "import os\nos.symlink('/etc/passwd', 'link'); os.mkfifo('pipe'); open('x', 'w').write('x')\n"
            "os.link('x', 'hard'); os.symlink('/', 'root'); open('good', 'w').write('good')"
        )
        tried = await run(code=code)

        assert tried.files == {"good": b"good"} and tried.reason == "stop"

    async def test_a_changed_file_of_the_program_is_delivered(self, run: Run) -> None:
        program = zipped({"main.py": "open('table.csv', 'a').write('2\\n')", "table.csv": "1\n", "same.csv": "1\n"})
        tried = await run(program, program="a")

        assert tried.files == {"table.csv": b"1\n2\n"}

    async def test_more_files_than_agreed_are_a_failure_and_the_first_are_kept(self, run: Run) -> None:
        tried = await run(code="for n in 'abc': open(n, 'w').write(n)\nprint('x')", limits={"files": 2})

        assert tried.reason == "files" and "3 files, and 2 are delivered" in tried.message
        assert set(tried.files) == {"a", "b"}

    async def test_a_failed_program_keeps_what_it_made(self, run: Run) -> None:
        tried = await run(code="open('partial', 'w').write('p'); raise SystemExit(9)")

        assert tried.reason == "exit" and tried.files == {"partial": b"p"}
