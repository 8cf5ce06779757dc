"""What a program finds when it starts: its own files and links to its inputs in the work folder, and its order."""

import os
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

from comptoir.kinds.python import PythonOrder
from comptoir.kinds.python.order import MAIN
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.python.host_python import HostPython
from comptoir.worker.engines.python.uv import PLACE
from comptoir.worker.sandbox.archive import NAME_BYTES_MAX, ArchiveLimits, BadArchive, unpack
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.types import MIB, Bound

ORDER, INPUTS, MACHINE_OWN_PLACE = "/order", "/inputs", "/machine"
"""Where a program finds what the runner is told, its inputs, and packages of the host's own build."""
ARCHIVE_FILES_MAX = 10_000
_INSIDE = ("runner.py", "comptoir_job.py")

Left = dict[str, tuple[int, int]]
"""Size and time of change of each file that was there before the program ran."""


class Layout(msgspec.Struct, frozen=True):
    """How one program is started."""

    argv: list[str]
    env: dict[str, str]
    bounds: list[Bound]
    before: Left


class _Places:
    """Says where the program finds what is shown to it: without walls, where it is."""

    def __init__(self, *, sandboxed: bool) -> None:
        self._sandboxed = sandboxed
        self.bounds: list[Bound] = []

    def show(self, source: Path, target: str) -> str:
        if not self._sandboxed:
            return str(source)
        self.bounds.append(Bound(str(source), target))
        return target


def lay_out(
    order: PythonOrder, run: SandboxRun, folder: Path, *, inputs: Sequence[Path], environment: Path | None,
    machine_own: Path | None, python: HostPython, sandboxed: bool,
) -> Layout:  # fmt: skip
    """Put everything in its place: the program below ``run.work``, what the runner is told below *folder*. Blocks.

    Args:
        inputs: the fetched files, in the order's order.
        environment, machine_own: folders of packages; None: none.

    Raises:
        EngineError: the program's archive is none, or has no such file.
    """
    places = _Places(sandboxed=sandboxed)
    places.bounds += python.bounds
    file = _put_program(order, run.work, inputs)
    seen = {}
    for number, (given, path) in enumerate(zip(order.inputs, inputs, strict=True)):
        if number == order.program_number:
            continue
        name = given.called(number)
        # A name of few characters may have more bytes than a file may.
        short = name if len(name.encode()) <= NAME_BYTES_MAX else f"input-{number}"
        seen[name] = places.show(path, f"{INPUTS}/{short}")
        if not os.path.lexists(run.work / short):
            (run.work / short).symlink_to(seen[name])
    paths = []
    if environment is not None:
        paths.append(places.show(environment, PLACE))
    if machine_own is not None:
        paths.append(places.show(machine_own, MACHINE_OWN_PLACE))
    told: dict[str, object] = {
        "file": file, "calls": order.calls, "args": order.args, "work": run.inside("/work"), "paths": paths, "inputs": seen,
    }  # fmt: skip
    said = _write_order(folder / "order", told, order)
    place = places.show(said, ORDER)
    argv = [python.program(sandboxed=sandboxed), "-I", "-S", "-u", "-B", f"{place}/runner.py", place]
    # For other Pythons that the program starts; its own is told by the runner.
    env = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ":".join(paths)}
    return Layout(argv, {**env, **python.env(sandboxed=sandboxed)}, places.bounds, _left_in(run.work))


def _put_program(order: PythonOrder, work: Path, inputs: Sequence[Path]) -> str:
    """Put the program below *work*; return the path of the file that is run, from there."""
    number = order.program_number
    if number is None:
        (work / MAIN).write_text(order.code, encoding="utf-8")
        return MAIN
    with inputs[number].open("rb") as archive:
        if _is_archive(archive.read(512)):
            archive.seek(0)
            limits = ArchiveLimits(bytes_max=order.limits.disk_mib * MIB, files_max=ARCHIVE_FILES_MAX)
            try:
                unpack(archive, work, limits)
            except BadArchive as bad:
                raise EngineError("bad_archive", f"the program: {bad}", fault="buyer", status=422) from bad
            file = order.entry_file or MAIN
            if not (work / file).is_file():
                raise EngineError("no_program", f"the archive has no file {file!r}", fault="buyer", status=422)
            return file
    # One file, under the name that its author chose, or that of the entrypoint.
    name = order.entry_file or order.inputs[number].called(number)
    if "/" in name or not name.endswith(".py"):
        name = MAIN
    shutil.copyfile(inputs[number], work / name)
    return name


def _is_archive(start: bytes) -> bool:
    return start.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")) or start[257:262] == b"ustar"


def _write_order(folder: Path, told: dict[str, object], order: PythonOrder) -> Path:
    """Write what the runner reads; root's worker's program is another user, who has to be able to."""
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    content = {"order.json": msgspec.json.encode(told)}
    if order.input is not msgspec.UNSET:
        content["input.json"] = bytes(order.input)
    inside = resources.files("comptoir.worker.engines.python.inside")
    content |= {name: inside.joinpath(name).read_bytes() for name in _INSIDE}
    for name, data in content.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o644)
    return folder


def _left_in(work: Path) -> Left:
    found: Left = {}
    for here, _, files in os.walk(work):
        for name in files:
            path = Path(here) / name
            facts = path.lstat()
            found[str(path.relative_to(work))] = (facts.st_size, facts.st_mtime_ns)
    return found
