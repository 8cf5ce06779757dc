"""Start-up: import, first start on a new folder, second start on the same, each to the first healthy answer; memory at
rest.

Beside it, in the same run, the interpreter alone importing uvicorn and uvloop. Usage: ``python -m bench.bench_start``
"""

import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5
REFERENCE = "import uvicorn, uvloop, httptools"
IMPORT = "import comptoir.app"
SERVE = """
import asyncio, http.client, os, signal, sys, threading, uvloop
from urllib.parse import urlsplit
from comptoir.app import serve
from comptoir.settings import Settings

def ask(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    pages = int(open("/proc/self/statm").read().split()[1])
    print(pages * os.sysconf("SC_PAGE_SIZE") // 1024, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

uvloop.run(serve(Settings(data=sys.argv[1], port=0), on_ready=lambda at: threading.Thread(target=ask, args=(at.url,)).start()))
"""


def timed(code: str, *args: str) -> tuple[float, str]:
    """Run *code* in a fresh interpreter; return seconds until its first line (or its end), and that line."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        spent = time.perf_counter() - started
    assert process.returncode == 0
    return spent, line


def main() -> None:
    """Print medians of all rounds."""
    reference = statistics.median(timed(REFERENCE)[0] for _ in range(ROUNDS))
    imported = statistics.median(timed(IMPORT)[0] for _ in range(ROUNDS))
    first, second, memory = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            first.append(timed(SERVE, folder)[0])
            spent, line = timed(SERVE, folder)
            second.append(spent)
            memory.append(int(line) / 1024)
    print(f"interpreter with uvicorn and uvloop   {reference * 1000:7.0f} ms")
    print(f"interpreter with the coordinator      {imported * 1000:7.0f} ms   ratio {imported / reference:.2f}")
    print(f"first start to healthy, new folder    {statistics.median(first) * 1000:7.0f} ms")
    print(f"second start to healthy, same folder  {statistics.median(second) * 1000:7.0f} ms")
    print(f"coordinator at rest                   {statistics.median(memory):7.0f} MiB resident")


if __name__ == "__main__":
    main()
