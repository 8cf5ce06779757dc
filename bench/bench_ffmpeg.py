"""What a film costs beside ffmpeg itself: the engine, which probes, sandboxes, encodes and probes again, against the
very command that it runs, as a bare child. And the encoders' weights, measured anew with ``--weights``.

Usage: ``python -m bench.bench_ffmpeg [ROUNDS | --weights]``
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.worker.local_files import LocalFiles

from comptoir.kinds.ffmpeg.formats import PRESETS, VIDEO_CODECS
from comptoir.kinds.ffmpeg.order import read_order
from comptoir.kinds.ffmpeg.work import WEIGHTS
from comptoir.worker.engines.base import EngineRequest
from comptoir.worker.engines.ffmpeg import FfmpegEngine
from comptoir.worker.engines.ffmpeg.command import ENCODERS, CommandHost, command, report_words
from comptoir.worker.engines.ffmpeg.media import read_report
from comptoir.worker.engines.ffmpeg.plan import make_plan
from comptoir.worker.engines.ffmpeg.program import find_program

ROUNDS = 10
LONGEST = {"h265": "slow", "vp9": "slower", "av1": "slower"}
"""The slowest preset that is measured of each; what is beyond takes minutes."""


def make_source(folder: Path, *, seconds: float) -> Path:
    """Make a film that is neither still nor noise alone: a zoom into the Mandelbrot set, with some."""
    path = folder / "source.mp4"
    picture = f"mandelbrot=size=640x360:rate=30:maxiter=200,noise=alls=6:allf=t,trim=duration={seconds}"
    words = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run([find_program().ffmpeg, "-v", "error", "-y", "-f", "lavfi", "-i", picture, *words], check=True)
    return path


def bare(source: Path, folder: Path, **fields: object) -> list[str]:
    """Return the command that the engine runs for an order, with the paths of this machine."""
    order = read_order(json.dumps({"inputs": [{"file": "file_1"}]} | fields).encode())
    ffmpeg = find_program().ffmpeg
    said = subprocess.run(report_words(ffmpeg, str(source)), capture_output=True, check=False)
    media = read_report(said.stderr.decode())
    assert media is not None
    plan = make_plan(order, media, input_bytes=source.stat().st_size, units_max=0)
    host = CommandHost(ffmpeg, str(source), str(folder / f"bare.{order.output_format}"), threads=1, bytes_max=10**9)
    return command(order, plan, host, encoders={codec: names[0] for codec, names in ENCODERS.items()})


async def overhead(folder: Path, rounds: int) -> None:
    """Print medians of a short film, alternating."""
    source = make_source(folder, seconds=2)
    words = bare(source, folder, preset="veryfast")
    engine = FfmpegEngine(folder=folder / "runs", threads=1)
    await engine.start()
    body = json.dumps({"inputs": [{"file": "file_1"}], "preset": "veryfast"}).encode()
    spent: dict[str, list[float]] = {"bare": [], "engine": []}
    for _ in range(rounds):
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        await process.communicate()
        spent["bare"].append(time.perf_counter() - began)
        began = time.perf_counter()
        files = LocalFiles(folder, [source.read_bytes()])
        async for _ in engine.run(EngineRequest("ffmpeg", "ffmpeg", body, files=files)):
            pass
        spent["engine"].append(time.perf_counter() - began)
    await engine.close()
    beside, whole = (statistics.median(spent[name]) for name in ("bare", "engine"))
    print(f"bare {beside * 1000:.0f} ms, engine {whole * 1000:.0f} ms: {(whole - beside) * 1000:+.0f} ms a film")


def weights(folder: Path) -> None:
    """Print the processor time of each codec and preset, in hundredths of H.264 at medium, beside what is charged."""
    source = make_source(folder, seconds=3)

    def cpu_s(codec: str, preset: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = bare(source, folder, codec=codec, preset=preset, output_format="mkv")
        subprocess.run(words, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    base = cpu_s("h264", "medium")
    for codec in VIDEO_CODECS if len(sys.argv) < 3 else sys.argv[2:]:
        for preset in PRESETS[: PRESETS.index(LONGEST.get(codec, PRESETS[-1])) + 1]:
            charged = WEIGHTS[codec][PRESETS.index(preset)]
            print(f"{codec:5} {preset:10} {cpu_s(codec, preset) / base * 100:6.0f}   charged {charged}")


def main() -> None:
    """Measure what was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:2] == ["--weights"]:
            weights(Path(folder))
        else:
            asyncio.run(overhead(Path(folder), int(sys.argv[1]) if sys.argv[1:] else ROUNDS))


if __name__ == "__main__":
    main()
