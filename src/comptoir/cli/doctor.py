"""``comptoir host doctor``: what this machine is ready to host, and what to do about the rest."""

import asyncio
import os
import tempfile
from pathlib import Path

import click
import msgspec
from rich.text import Text

from comptoir.cli.failure import Exit
from comptoir.cli.screen import out, print_json, table
from comptoir.worker.engines.registry import ENGINES, about, missing_for
from comptoir.worker.sandbox import LAYERS, Sandbox, SandboxMissing


class Finding(msgspec.Struct, frozen=True):
    """One row of the table."""

    part: str
    ready: bool
    found: str
    """What is there, or what is missing."""
    todo: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def doctor(as_json: bool) -> None:
    """Show what this machine is ready to host, and what to do about the rest.

    Each layer of the sandbox is tried with a program that does nothing; engines are looked at, and none is started.
    Exit code 1 if no sandbox holds here: then no stranger's program runs on this host.

    \b
    Examples:
      comptoir host doctor
      comptoir host doctor --json
    """
    findings = [*asyncio.run(examine_sandbox()), *examine_engines()]
    if as_json:
        print_json([msgspec.structs.asdict(each) for each in findings])
    else:
        shown = table("part", "", "found, or what to do")
        for each in findings:
            mark = Text("ready", style="green") if each.ready else Text("missing", style="yellow")
            shown.add_row(each.part, mark, f"{each.found}: {each.todo}" if each.todo else each.found)
        out().print(shown)
    if not any(each.ready for each in findings if each.part.removeprefix("sandbox ") in LAYERS):
        raise click.exceptions.Exit(Exit.REFUSED)


async def examine_sandbox() -> list[Finding]:
    """Try each layer, as this user."""
    with tempfile.TemporaryDirectory(prefix="comptoir-doctor-") as folder:
        sandbox = Sandbox(Path(folder) / "runs")
        try:
            await sandbox.open(every=True)
        except SandboxMissing:
            counted = None
        else:
            counted = sandbox.layer.groups
            await sandbox.close()
    findings = [Finding(f"sandbox {each.name}", each.ready, each.why, each.todo) for each in sandbox.checks]
    if counted is not None:
        findings.append(Finding("control groups", True, f"version {counted.version} counts memory and processes"))
    else:
        todo = "start the worker as a systemd service with Delegate=yes, or as root"
        found = "none for this user, so that memory is counted ten times a second"
        findings.append(Finding("control groups", False, found, todo))
    who = "root; each program runs as a user of its own" if os.geteuid() == 0 else "an ordinary user, as do programs"
    return [*findings, Finding("user", True, who)]


def examine_engines() -> list[Finding]:
    """Look what each engine misses here."""
    missing = {entry: missing_for(entry) for entry in ENGINES}
    return [Finding(f"engine {entry.name}", not why, why or about(entry)) for entry, why in missing.items()]
