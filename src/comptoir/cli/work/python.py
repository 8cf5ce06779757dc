"""``comptoir run python``."""

import sys
from typing import Any

import click

from comptoir.cli.failure import Exit, Failure
from comptoir.cli.work.any_kind import read_json
from comptoir.cli.work.command import sells
from comptoir.cli.work.order import JobInput, WorkOrder, checked_file, inputs_option, read_input

CODE_BYTES_MAX = 256 * 1024
"""Longest program that goes with the order itself; a longer one is uploaded first, as are archives."""

STDIN_BYTES_MAX = 1024 * 1024
"""Longest standard input: what is longer is an input."""

REQUIREMENTS_BYTES_MAX = 64 * 1024

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

LIMITS = {
    "wall": ("wall_s", "SECONDS", "Longest time it may take, which the hold covers [60]."),
    "cpu": ("cpu_s", "SECONDS", "Most processor time, which the hold covers as well [the time on all cores]."),
    "cores": ("cores", "N", "Processors that it may keep busy [1]."),
    "memory": ("memory_mib", "MIB", "Memory that it may take [1024]."),
    "disk": ("disk_mib", "MIB", "What it may write [1024]."),
    "processes": ("processes", "N", "Processes and threads that it may start [128]."),
}
"""Options for what a program may use: the field of the order's ``limits``, and help."""


def _limits_options(command: Any) -> Any:
    for name, (_, metavar, words) in reversed(LIMITS.items()):
        command = click.option(f"--{name}", type=click.IntRange(1), metavar=metavar, help=words)(command)
    return command


@sells("python")
@click.argument("program", metavar="PROGRAM", required=False)
@click.argument("args", metavar="[ARGUMENT]...", nargs=-1)
@click.option("--code", "-c", metavar="TEXT", help="The program itself, instead of PROGRAM.")
@inputs_option(help="A file that it finds in its folder: [NAME=]FILE, an address, or a file's id. Repeatable.")
@click.option(
    "--requirement", "-r", "requirements", metavar="PACKAGE", multiple=True,
    help="A package it needs, such as 'numpy>=2'; or a file with one a line: requirements.txt. Repeatable.",
)  # fmt: skip
@click.option("--call", metavar="JSON", help="Call its main(JSON) and print what it returns; @FILE has the JSON.")
@click.option("--entrypoint", metavar="FILE[:FUNCTION]", help="What is run of an archive, or called [main.py, main].")
@click.option("--stdin", metavar="FILE", help="What it reads from standard input; '-' is what comes in here.")
@click.option(
    "--output", "outputs", metavar="PATTERN", multiple=True, help="Results to keep: '*.png' [all]. Repeatable."
)
@_limits_options
@click.option("--network", is_flag=True, help="It needs the network; only hosts that allow it get the job.")
@click.option("--builds", is_flag=True, help="Packages without a wheel may be built; only hosts that do get the job.")
@click.option("--unsandboxed-ok", is_flag=True, help="A host without a sandbox may run it as well.")
def python(
    *,
    program: str | None,
    args: tuple[str, ...],
    code: str | None,
    inputs: tuple[JobInput, ...],
    requirements: tuple[str, ...],
    call: str | None,
    entrypoint: str | None,
    stdin: str | None,
    outputs: tuple[str, ...],
    network: bool,
    builds: bool,
    unsandboxed_ok: bool,
    **limits: int | None,
) -> WorkOrder:
    """Run a Python program at a host, and get what it writes.

    PROGRAM is a file here, an archive (.zip, .tar.gz) with main.py in it, '-' for standard input, or a file's id. What
    it prints appears here as it prints it; files that it leaves in its folder come into this one. You pay by the second
    and by the CPU second. It has no network unless you ask for it. Arguments that begin with a dash come after '--'.

    \b
    Examples:
      comptoir run python job.py --input data.csv --requirement numpy --requirement pandas
      comptoir run python -c "print(sum(range(10)))"
      comptoir run python job.py --call '{"n": 3}' --json | jq .result
      comptoir run python train.tar.gz --entrypoint train.py --wall 3600 --memory 4096 --out results -- --epochs 3
    """
    if code is not None and program is not None:
        args, program = (program, *args), None
    body, extra = _program(program, code)
    body |= {
        "args": list(args),
        "requirements": [line for text in requirements for line in _requirements(text)],
        "entrypoint": entrypoint,
        "outputs": list(outputs) or None,
        "stdin": _stdin(stdin) if stdin is not None else None,
        "limits": {LIMITS[name][0]: value for name, value in limits.items() if value is not None},
        "network": network,
        "builds": builds,
        "unsandboxed_ok": unsandboxed_ok,
    }
    said = {field: value for field, value in body.items() if value}
    return WorkOrder("python", said | ({"input": read_json(call)} if call is not None else {}), (*extra, *inputs))


def _program(program: str | None, code: str | None) -> tuple[dict[str, Any], tuple[JobInput, ...]]:
    """Return the fields that say what is run, and the input that it is, if any."""
    if code is not None:
        return {"code": code}, ()
    if program is None:
        raise Failure("there is no program", "try: comptoir run python -c \"print('Hello')\"", code=Exit.USAGE)
    if program == "-":
        return {"code": _text(sys.stdin.buffer.read(CODE_BYTES_MAX + 1), "standard input", CODE_BYTES_MAX)}, ()
    given = read_input(program)
    if given.path is None:
        return {"program": given.file or given.name or given.url.rpartition("/")[2]}, (given,)
    if given.path.name.endswith(ARCHIVES) or given.path.stat().st_size > CODE_BYTES_MAX:
        return {"program": given.name or given.path.name}, (given,)
    return {"code": _text(given.path.read_bytes(), program, CODE_BYTES_MAX)}, ()


def _stdin(text: str) -> str:
    if text == "-":
        return _text(sys.stdin.buffer.read(STDIN_BYTES_MAX + 1), "standard input", STDIN_BYTES_MAX)
    with checked_file(text).open("rb") as file:
        return _text(file.read(STDIN_BYTES_MAX + 1), text, STDIN_BYTES_MAX)


def _text(raw: bytes, what: str, bytes_max: int) -> str:
    if len(raw) > bytes_max:
        raise Failure(f"{what} is larger than {bytes_max:,} bytes", "give it with --input", code=Exit.USAGE)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{what} is no text in UTF-8: {error}", "give it with --input", code=Exit.USAGE) from error


def _requirements(text: str) -> list[str]:
    """Return the packages that *text* names: itself, or the lines of the file that it is."""
    if not text.endswith(".txt"):
        return [text]
    with checked_file(text).open("rb") as file:
        found = _text(file.read(REQUIREMENTS_BYTES_MAX + 1), text, REQUIREMENTS_BYTES_MAX)
    lines = [line.partition(" #")[0].strip() for line in found.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
