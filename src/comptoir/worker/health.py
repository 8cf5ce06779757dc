"""What the worker runs on (nvidia-smi, else the processor's name), how busy it is, and how fast an engine answers."""

import asyncio
import contextlib
import csv
import logging
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from comptoir.kinds import Kinds
from comptoir.link import Frame, ModelOffer
from comptoir.worker.engines.base import Engine, EngineError, EngineRequest, Finish

_log = logging.getLogger(__name__)

NVIDIA_SMI_TIMEOUT_S = 5.0
"""Most seconds for nvidia-smi: it takes one or two on a machine without persistence mode, and hangs on a lost GPU."""

MEASURE_TIMEOUT_S = 120.0
"""Most seconds for the self-measure; the first request also warms a server up."""

MEASURE_TOKENS_MAX = 64
"""Where a measurement ends whose engine refuses to be bounded; a sample asks for half of that at most."""

DISPENSABLE = frozenset(("max_tokens", "temperature"))
"""Fields of samples that an engine can do without."""

NAME_CHARS_MAX = 200
"""Longest description of the hardware; the registration takes no more."""

_QUERY = "name,memory.total,utilization.gpu"


class Gpu(msgspec.Struct, frozen=True):
    """One GPU as nvidia-smi reports it."""

    name: str
    vram_mib: int
    """0 if the driver reports none (unified memory)."""
    utilization: float
    """0..1; 0 if the driver reports none."""


class Hardware(msgspec.Struct, frozen=True):
    """The machine in one line."""

    gpu: str
    """``2x NVIDIA H100`` or the processor's name."""
    vram_mib: int
    """Over all GPUs; 0 without."""
    gpus: int


class MachineCapacity(msgspec.Struct, frozen=True):
    """What the machine has for jobs beside its GPUs, as reported by the operating system. 0: unknown."""

    cpu_millis: int
    """Thousandths of a core that this process may use."""
    memory_mib: int
    disk_mib: int
    """Free space on the disk with the worker's state."""


class Measure(msgspec.Struct, frozen=True):
    """How fast an engine answered a short order."""

    first_token_s: float
    """Time to the first frame that counts units."""
    tokens_per_s: float
    """Units of output per second after that; 0 if the answer was a single unit."""


def detect_gpus() -> list[Gpu]:
    """Ask nvidia-smi (blocking, up to 5 s). Empty when there is none, it fails, or it hangs."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("nvidia-smi could not be asked: %s", error)
        return []
    if result.returncode != 0:
        _log.warning("nvidia-smi failed (%d): %s", result.returncode, (result.stdout + result.stderr).strip()[:500])
        return []
    rows = csv.reader(result.stdout.splitlines(), skipinitialspace=True)
    return [Gpu(row[0].strip(), int(_number(row[1])), _number(row[2]) / 100) for row in rows if len(row) == 3]


def describe(gpus: list[Gpu]) -> Hardware:
    """Describe *gpus* in one line, counting equal ones; without any, the processor."""
    if not gpus:
        return Hardware(_processor()[:NAME_CHARS_MAX], 0, 0)
    counts: dict[str, int] = {}
    for gpu in gpus:
        counts[gpu.name] = counts.get(gpu.name, 0) + 1
    line = " + ".join(name if count == 1 else f"{count}x {name}" for name, count in counts.items())
    return Hardware(line[:NAME_CHARS_MAX], sum(gpu.vram_mib for gpu in gpus), len(gpus))


def measure_capacity(folder: Path) -> MachineCapacity:
    """Ask the operating system; *folder* is on the disk that counts."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return MachineCapacity(cores * 1000, memory >> 20, shutil.disk_usage(folder).free >> 20)


def utilization(gpus: list[Gpu]) -> float:
    """Return the mean utilisation, 0..1; 0 without GPUs."""
    return sum(gpu.utilization for gpu in gpus) / len(gpus) if gpus else 0.0


async def measure(engine: Engine, model: ModelOffer, kinds: Kinds) -> Measure | None:
    """Run a short order of the first kind that has a sample (`Kind.sample`); None if none has.

    Raises:
        EngineError: the engine can't answer (or not within 120 s), so it should not be offered.
    """
    samples = ((kind.name, kind.sample(model.name)) for kind in kinds.sold(model))
    name, body = next((sample for sample in samples if sample[1]), ("", b""))
    if not body:
        return None
    request = EngineRequest(kind=name, model=model.name, body=body)
    try:
        return await _timed(engine, request)
    except EngineError as error:
        lean = _without_named(body, error)
        if not lean:
            raise
        # The sample's own fields are no reason not to offer an engine that answers buyers who don't send them.
        return await _timed(engine, msgspec.structs.replace(request, body=lean))


def _without_named(body: bytes, error: EngineError) -> bytes:
    """Return the sample without the fields that the engine names in its refusal; empty if it names none."""
    said = f"{error.message}\n{error.body.decode(errors='replace')}"
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    named = {name for name in DISPENSABLE & fields.keys() if re.search(rf"\b{name}\b", said)}
    if error.fault != "buyer" or not named:
        return b""
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in named})


async def _timed(engine: Engine, request: EngineRequest) -> Measure:
    started = time.monotonic()
    first = 0.0
    tokens = 0
    last = started
    try:
        async with asyncio.timeout(MEASURE_TIMEOUT_S), contextlib.aclosing(_generator(engine, request)) as items:
            async for item in items:
                if isinstance(item, Frame) and item.tokens:
                    last = time.monotonic()
                    first = first or last
                    tokens += item.tokens
                    if tokens >= MEASURE_TOKENS_MAX:
                        break
                elif isinstance(item, Finish):
                    last = time.monotonic()
    except TimeoutError as error:
        raise EngineError("measure_timeout", f"no answer to a short prompt within {MEASURE_TIMEOUT_S:g} s") from error
    first_token_s = (first or last) - started
    writing_s = last - first
    return Measure(first_token_s, (tokens - 1) / writing_s if first and tokens > 1 and writing_s > 0 else 0.0)


async def _generator(engine: Engine, request: EngineRequest) -> AsyncGenerator[Frame | Finish, None]:
    """Wrap any iterator in a generator, so that it can be closed."""
    async for item in engine.run(request):
        yield item


def _number(text: str) -> float:
    """Read a number of nvidia-smi, 0 for ``[N/A]``, ``[Not Supported]`` and the like."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError as error:
        # Not Linux; the platform module knows a little about other systems.
        _log.debug("no /proc/cpuinfo: %s", error)
    return platform.processor() or platform.machine() or "CPU"
