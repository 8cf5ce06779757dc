"""Programs that mean harm, or do it: each ends in a word of its own, what came before is kept, and the worker goes on.

What the walls hold is tried in `tests/worker/sandbox`; here it is the engine's part: that all limits of an order are in
force, that nothing is delivered that is not the program's own, and that its end is told in the right words.
"""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from comptoir.link import Frame
from comptoir.worker.engines.python import PythonEngine
from tests.worker.engines.python.conftest import Run
from tests.worker.engines.python.trying import attempt, job_folder, request_for
from tests.worker.local_files import LocalFiles
from tests.worker.sandbox.conftest import living

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORKS = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


class TestLimits:
    @pytest.mark.parametrize(
        ("code", "limits", "reason"),
        [
            ("print('a'); import time; time.sleep(99)", {"wall_s": 1}, "wall"),
            ("print('a')\nwhile True: pass", {"cpu_s": 1, "wall_s": 30}, "cpu"),
            ("print('a'); x = bytearray(2 << 30)", {"memory_mib": 128}, "memory"),
            ("print('a')\nwhile True: print('y' * 1000)", {"output_kib": 64}, "output"),
            ("print('a')\nwith open('f', 'wb') as f:\n  while True: f.write(bytes(1 << 20))", {"disk_mib": 8}, "disk"),
        ],
        ids=["sleep", "spin", "memory", "flood", "disk"],
    )
    async def test_each_has_its_word_and_what_was_printed_is_kept(
        self, code: str, limits: dict[str, int], reason: str, run: Run
    ) -> None:
        """One bare "killed" for all of them tells nobody what to change."""
        tried = await run(code=code, limits=limits)

        assert tried.reason == reason and tried.message, tried.err
        assert tried.out.startswith("a\n")
        assert sum(len(each.text) for each in tried.frames) <= 64 * 1024 + 2_000
        usage = tried.finish.usage
        assert 1 <= usage.completion_tokens <= limits.get("wall_s", 60) * 1000
        assert usage.prompt_tokens <= usage.completion_tokens, "one core: no more processor time than time"

    async def test_a_fork_bomb_uses_up_its_own_time(self, run: Run) -> None:
        tried = await run(code=FORKS, limits={"wall_s": 1, "processes": 32, "cpu_s": 30})

        assert tried.reason in ("wall", "cpu", "processes")

    @pytest.mark.proof
    async def test_ten_thousands_of_files_are_cut(self, run: Run) -> None:
        tried = await run(code="n = 0\nwhile True:\n    open(str(n), 'w').close(); n += 1", limits={"wall_s": 60})

        assert tried.reason == "disk" and len(tried.files) <= 64

    async def test_a_flood_of_the_channel_ends_it(self, run: Run) -> None:
        code = 'import os\nline = b\'{"progress": {"done": 0.5}}\\n\' * 1000\nwhile True: os.write(3, line)'
        tried = await run(code=code, limits={"wall_s": 20})

        assert tried.reason == "output" and len(tried.frames) < 60

    async def test_many_tiny_prints_are_few_frames(self, run: Run) -> None:
        code = "import os\nfor n in range(20_000): os.write(1 + n % 2, b'x')"
        tried = await run(code=code)

        assert len(tried.out) == len(tried.err) == 10_000 and len(tried.frames) < 300


class TestWalls:
    async def test_nothing_of_the_host_is_there(self, run: Run) -> None:
        code = (
            "import os, socket\n"
            "def tried(f, *a):\n    try: return f(*a)\n    except OSError as e: return type(e).__name__\n"
            "def main(_):\n"
            "    return {'env': sorted(os.environ), 'root': tried(os.listdir, '/root'), 'home': os.listdir('/home'),\n"
            "        'proc': [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 200],\n"
            "        'net': tried(socket.create_connection, ('169.254.169.254', 80), 1),\n"
            "        'site': tried(os.listdir, '/environment'), 'uid': os.getuid() != 0,\n"
            "        'order': tried(open, '/order/order.json', 'w'), 'python': tried(open, '/python/bin/x', 'w')}"
        )
        tried = await run(code=code, input=None)

        found = tried.result
        assert found.pop("proc") == [] and found.pop("home") == ["user"] and found.pop("uid") is True
        assert found.pop("python") in ("OSError", "FileNotFoundError")
        assert found.pop("root") in ("FileNotFoundError", "PermissionError")
        allowed = "HOME LANG LC_CTYPE LD_LIBRARY_PATH PATH PWD PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONUNBUFFERED TMPDIR USER"
        assert set(found.pop("env")) <= set(allowed.split())
        assert found == {"net": "OSError", "site": "FileNotFoundError", "order": "OSError"}, found

    async def test_what_it_leaves_running_is_dead_before_its_end_is_told(self, run: Run) -> None:
        unique = f"300.{uuid.uuid4().int % 10**9:09}"
        code = (
            "import subprocess\nsubprocess.Popen(['sh', '-c', 'setsid sleep "
            + unique
            + " & sleep "
            + unique
            + "'], start_new_session=True)\nprint('left')"
        )
        tried = await run(code=code)

        assert (tried.reason, tried.out) == ("stop", "left\n") and living(unique) == []

    async def test_inputs_are_read_only_and_of_any_name(self, engine: PythonEngine, folder: Path) -> None:
        names = ["-y.txt", "$(id)", "a b'\"\\", "…" * 85 + "é", "main.py"]
        order: dict[str, Any] = {
            "code": "import comptoir_job\ndef main(_): return {n: open(p).read() for n, p in comptoir_job.inputs.items()}",
            "input": None,
            "inputs": [{"name": name, "file": f"file_{at}"} for at, name in enumerate(names)],
        }
        tried = await attempt(engine, folder, order, *(str(at).encode() for at in range(len(names))))

        assert tried.result == {name: str(at) for at, name in enumerate(names)}


class TestStopped:
    async def test_closing_stops_it_at_once_and_leaves_nothing(self, engine: PythonEngine, folder: Path) -> None:
        """A cancelled job: whatever it does, nothing of it lives on, and its slot and folder are free."""
        unique = f"300.{uuid.uuid4().int % 10**9:09}"
        code = f"import subprocess, signal\nsignal.signal(15, signal.SIG_IGN)\nprint('on')\nsubprocess.run(['sleep', '{unique}'])"
        with job_folder(folder) as made:
            stream = engine.run(request_for({"code": code}, LocalFiles(made, [])))
            async with asyncio.timeout(20):
                async for item in stream:
                    if isinstance(item, Frame) and "on" in item.text:
                        break
            assert living(unique) or await _soon(unique)
            await stream.aclose()  # type: ignore[attr-defined]

        assert living(unique) == []
        assert [each for each in (folder / "runs").glob("worker_*/*") if each.is_dir()] == []

    async def test_another_host_begins_again_and_says_so(self, engine: PythonEngine, folder: Path) -> None:
        prefix = (Frame("half of it\n", 0, b'{"stream":"stdout"}'),)
        tried = await attempt(engine, folder, {"code": "print('whole')"}, prefix=prefix)

        assert tried.extras[0].begun_again and tried.out == "whole\n" and tried.reason == "stop"

    async def test_no_more_time_is_used_than_is_left_to_pay(self, engine: PythonEngine, folder: Path) -> None:
        """The buyer named a bound of their own, below the limits."""
        code = "import time; time.sleep(99)"
        tried = await attempt(engine, folder, {"code": code, "limits": {"wall_s": 50}}, max_tokens=300)

        assert tried.reason == "wall" and tried.finish.usage.completion_tokens == 300


async def _soon(unique: str) -> bool:
    async with asyncio.timeout(20):
        while not living(unique):
            await asyncio.sleep(0.01)
    return True
