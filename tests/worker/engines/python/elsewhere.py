"""A few programs as another user, behind other walls: ``python -m tests.worker.engines.python.elsewhere LAYER FOLDER``.

Prints a line of JSON: what is offered of the sandbox, then of each program its reason, message, log, result and files.
"""

import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from comptoir.worker.engines import programs
from comptoir.worker.sandbox import Sandbox
from tests.worker.engines.python.trying import attempt, opened
from tests.worker.engines.python.wheels import simple, wheel

ORDERS: list[dict[str, Any]] = [
    {
        "code": (
            "import small, comptoir_job, subprocess, sys\nopen('o.txt', 'w').write('made')\n"
            "def main(x):\n    print(subprocess.check_output([sys.executable, '-c', 'import small; print(small.WORD)']))\n"
            "    return [small.WORD, x, open('a').read(), open(comptoir_job.inputs['a']).read()]"
        ),
        "input": 1,
        "requirements": ["small"],
    },
    {"code": "print('a'); x = bytearray(2 << 30)", "limits": {"memory_mib": 128}},
    {"code": "print('a')\nwhile True: pass", "limits": {"cpu_s": 1, "wall_s": 30}},
    {
        "code": "print('a')\nwith open('f', 'wb') as f:\n  while True: f.write(bytes(1 << 20))",
        "limits": {"disk_mib": 8},
    },
    {"code": "print('a'); import time; time.sleep(99)", "limits": {"wall_s": 1}},
]


async def main(layer: str, folder: Path) -> None:
    """Run them."""
    index = folder / "index"
    index.mkdir()
    wheel(index, "small", "1.0", {"small.py": "WORD = 'word'"})
    os.environ |= {"UV_DEFAULT_INDEX": f"file://{simple(index)}", "UV_NO_CONFIG": "1"}
    options = {"unsandboxed": "yes"} if layer == "none" else {}
    if layer != "none":
        programs.Sandbox = partial(Sandbox, layers=[layer], control_groups=False)  # type: ignore[misc,assignment]
    async with opened(folder, **options) as engine:
        said: list[Any] = [(await engine.models())[0].capabilities["sandbox"]]
        for order in ORDERS:
            tried = await attempt(engine, folder, order | {"unsandboxed_ok": True}, b"in")
            result = tried.result if tried.last.result is not msgspec.UNSET else None
            sizes = {name: len(content) for name, content in tried.files.items()}
            said.append([tried.reason, tried.message, tried.out, result, sizes])
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
