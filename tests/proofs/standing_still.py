"""A test that starts one of everything and then stands still: `tests.proofs.test_ended_runs` ends its run, in every
way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT
from tests.leftovers import NAME, mark
from tests.programs import find_chromium
from tests.redis_server import RedisServer
from tests.servers import OwnServer

SAYS = "STANDING_STILL_SAYS"
"""Variable with the path of a file that appears when everything runs: this process, the folder of the run, and its
own."""


def test_it_stands_still(
    run_folder: Path, postgres_url: str, own_server: OwnServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    browser = [
        find_chromium(),
        "--headless",
        "--no-sandbox",
        f"--user-data-dir={tmp_path}",
        "--remote-debugging-port=0",
    ]
    trading_post = [sys.executable, "-m", "comptoir", "up", "--port", "0", "--data", str(tmp_path / "data")]
    bare = {**mark(), "PYTHONPATH": f"{ROOT}/src", "PATH": "", "HOME": str(tmp_path)}
    both = [
        (subprocess.Popen(browser, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), "DevTools listening"),
        (
            subprocess.Popen(trading_post, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=bare),
            "● active",
        ),
    ]
    for program, words in both:
        assert program.stdout is not None
        said = []
        for line in program.stdout:
            said.append(line)
            if words in line:
                break
        else:
            raise AssertionError("".join(said))
    says = Path(os.environ[SAYS])
    says.with_suffix(".new").write_text(f"{os.getpid()} {run_folder} {os.environ[NAME]}")
    says.with_suffix(".new").rename(says)
    signal.pause()
