"""What a buyer orders of the kind python, and what is wrong with it: read by the coordinator before anything is held,
and by the host."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from comptoir.kinds.files import INPUTS_MAX, InputFile
from comptoir.kinds.python.requirements import LINE_CHARS_MAX, LINES_MAX, MACHINE_OWN, name_of, wrong_line

CODE_CHARS_MAX = 1024 * 1024
"""Longest program that stands in the order itself; a longer one is an input."""
TEXT_CHARS_MAX = 1024 * 1024
"""Longest standard input that stands in the order."""
ARGUMENTS_MAX = 256
ARGUMENT_CHARS_MAX = 8 * 1024
PATTERNS_MAX = 64
PATTERN_CHARS_MAX = 255
MAIN = "main.py"
"""What a program is called that has no other name."""

WALL_S_MAX = 24 * 3600
CORES_MAX = 64
MEMORY_MIB_MAX = 64 * 1024
DISK_MIB_MAX = 128 * 1024
PROCESSES_MAX = 4096
OUTPUT_KIB_MAX = 4 * 1024
"""The log is part of the answer, which is kept whole (``answer_bytes_max``)."""
FILES_MAX = 1024


class Class(NamedTuple):
    """A size that a host can do, or not: orders of more than *above* ask for it, and it goes up to *most*."""

    name: str
    field: str
    above: int
    most: int


CLASSES = (
    Class("wall_1h", "wall_s", 600, 3600),
    Class("wall_24h", "wall_s", 3600, WALL_S_MAX),
    Class("memory_4g", "memory_mib", 1024, 4 * 1024),
    Class("memory_16g", "memory_mib", 4 * 1024, 16 * 1024),
    Class("memory_64g", "memory_mib", 16 * 1024, MEMORY_MIB_MAX),
    Class("cores_2", "cores", 1, 2),
    Class("cores_4", "cores", 2, 4),
    Class("cores_16", "cores", 4, 16),
    Class("cores_64", "cores", 16, CORES_MAX),
    Class("disk_16g", "disk_mib", 2 * 1024, 16 * 1024),
    Class("disk_128g", "disk_mib", 16 * 1024, DISK_MIB_MAX),
)
"""Every host grants what is below the first class of a field. An offer names the classes up to its owner's maximum, so
that an order never reaches a host that would refuse it."""

EVERYBODYS = {"wall_s": 600, "memory_mib": 1024, "cores": 1, "disk_mib": 2 * 1024}
"""What every host grants."""

SANDBOX, NETWORK, BUILDS, TORCH = "sandbox", "network", "builds", "torch"

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {SANDBOX: "unsandboxed_ok", NETWORK: "network", BUILDS: "builds", TORCH: "requirements"}
    | {each.name: f"limits.{each.field}" for each in CLASSES}
)


class BadOrder(ValueError):
    """The body is no order; the message says why, after the word ``body``."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the program may use, all of it as a whole; the hold covers the two times."""

    wall_s: Annotated[int, Meta(ge=1, le=WALL_S_MAX)] = 60
    cpu_s: Annotated[int, Meta(ge=1, le=2_000_000)] | None = None
    """Seconds of processor time of all its processes. None: *wall_s* on all *cores*."""
    cores: Annotated[int, Meta(ge=1, le=CORES_MAX)] = 1
    memory_mib: Annotated[int, Meta(ge=64, le=MEMORY_MIB_MAX)] = 1024
    disk_mib: Annotated[int, Meta(ge=1, le=DISK_MIB_MAX)] = 1024
    """Everything that it writes, and an archive that it comes in; inputs are not counted."""
    processes: Annotated[int, Meta(ge=1, le=PROCESSES_MAX)] = 128
    """Processes and threads."""
    output_kib: Annotated[int, Meta(ge=1, le=OUTPUT_KIB_MAX)] = 1024
    """The log: standard output and error together. What comes before the limit is kept."""
    files: Annotated[int, Meta(ge=0, le=FILES_MAX)] = 64
    """Files that are delivered."""
    network_mib: Annotated[int, Meta(ge=1, le=64 * 1024)] = 1024
    """Sent and received, where a network was asked for."""

    @property
    def cpu_most_s(self) -> int:
        """Seconds of processor time that may be used, and paid."""
        every = self.wall_s * self.cores
        return every if self.cpu_s is None else min(self.cpu_s, every)


class PythonOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A program, what it works on, and what it may use. Either *code* or *program* is given."""

    code: Annotated[str, Meta(max_length=CODE_CHARS_MAX)] = ""
    """The program itself, as ``main.py``."""
    program: Annotated[str, Meta(max_length=255)] = ""
    """The input that is the program, by the name or file id that stands there: a Python file, or an archive (zip, tar,
    tar.gz)."""
    entrypoint: Annotated[str, Meta(max_length=255)] = ""
    """``file.py``, ``file.py:function`` or ``:function``. Without a file: *program* itself, or an archive's
    ``main.py``."""
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Any JSON. With it, or a function in *entrypoint*, the function (``main``) is called and returns the result."""
    args: Annotated[
        tuple[Annotated[str, Meta(max_length=ARGUMENT_CHARS_MAX)], ...], Meta(max_length=ARGUMENTS_MAX)
    ] = ()
    stdin: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""
    requirements: Annotated[
        tuple[Annotated[str, Meta(max_length=LINE_CHARS_MAX)], ...], Meta(max_length=LINES_MAX)
    ] = ()
    """Names of packages with versions, extras and markers, as in ``numpy>=2,<3``; nothing else."""
    outputs: (
        Annotated[
            tuple[Annotated[str, Meta(min_length=1, max_length=PATTERN_CHARS_MAX)], ...], Meta(max_length=PATTERNS_MAX)
        ]
        | None
    ) = None
    """Which files that it leaves are delivered, by patterns such as ``*.png``; None: all."""
    inputs: Annotated[tuple[InputFile, ...], Meta(max_length=INPUTS_MAX)] = ()
    """The program finds each in its folder, by its name, read-only; unless a file of its own has that name."""
    limits: Limits = Limits()
    network: bool = False
    """Whether it needs public addresses, over HTTPS; hosts that allow none are passed over."""
    builds: bool = False
    """Whether packages may be built from source where there is no wheel; hosts that don't are passed over."""
    unsandboxed_ok: bool = False
    """Whether a host without walls may run it."""

    @property
    def calls(self) -> str:
        """The function that is called; empty: the program runs as a script."""
        _, colon, function = self.entrypoint.partition(":")
        return function if colon else "main" if self.input is not msgspec.UNSET else ""

    @property
    def entry_file(self) -> str:
        """The file that *entrypoint* names; empty: none."""
        return self.entrypoint.partition(":")[0]

    @property
    def program_number(self) -> int | None:
        """Place among the inputs of the one that is the program; None: it is *code*."""
        if not self.program:
            return None
        return next((at for at, each in enumerate(self.inputs) if self.program in (each.called(at), each.file)), -1)

    @property
    def asks(self) -> frozenset[str]:
        """What a host must be able to do, by capability."""
        sizes = [each.name for each in CLASSES if getattr(self.limits, each.field) > each.above]
        asked = [name for name, wanted in ((NETWORK, self.network), (BUILDS, self.builds)) if wanted]
        if any(name_of(line) in MACHINE_OWN for line in self.requirements):
            asked.append(TORCH)
        if not self.unsandboxed_ok:
            asked.append(SANDBOX)
        return frozenset([*asked, *sizes])


_decode = msgspec.json.Decoder(PythonOrder).decode


def read_order(body: bytes) -> PythonOrder:
    """Return the order in *body*.

    Raises:
        BadOrder: it is none; the message goes on after the word ``body``.
    """
    try:
        order = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadOrder(f"is no order of a Python program: {error}") from error
    if wrong := _wrong(order):
        raise BadOrder(wrong)
    return order


def _wrong(order: PythonOrder) -> str:
    if bool(order.code) == bool(order.program):
        return "must have either code, or program, the name of an input"
    if order.program_number == -1:
        return f"names the program {order.program!r}, which is none of its inputs"
    if wrong := _wrong_entry(order):
        return wrong
    for number, line in enumerate(order.requirements):
        if why := wrong_line(line):
            return f"has requirements[{number}], which {why}"
    if any("\0" in word for word in order.args):
        return "has an argument with a NUL, which no program can be given"
    return ""


def _wrong_entry(order: PythonOrder) -> str:
    if not order.entrypoint:
        return ""
    file, function = order.entry_file, order.calls
    parts = file.split("/")
    if file and ("" in parts or ".." in parts or "." in parts or not file.isprintable()):
        return f"has the entrypoint {order.entrypoint!r}, whose file is no path below the program's folder"
    if ":" in order.entrypoint and not function.isidentifier():
        return f"has the entrypoint {order.entrypoint!r}, whose function is no name"
    if file and order.code:
        return "has code and an entrypoint with a file; only :function can be chosen in it"
    return ""
