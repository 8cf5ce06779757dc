"""A worker as far as the sandbox needs one: it runs what it is told, in a process of its own that may be killed.

``python -m tests.worker.sandbox.driver FOLDER LAYER GROUPS`` takes an `Order` a line and
answers each with an `Outcome`.
"""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from comptoir.worker.sandbox import Sandbox
from comptoir.worker.sandbox.process import SandboxProcess, SandboxRun
from comptoir.worker.sandbox.results import NoResult, list_results, open_result
from comptoir.worker.sandbox.types import Bound, RunReport, SandboxFailed, SandboxLimits


class Order(msgspec.Struct, kw_only=True):
    argv: list[str]
    limits: SandboxLimits = SandboxLimits()
    inputs: list[Bound] = []
    env: dict[str, str] = {}
    stdin: bytes = b""
    files: dict[str, str] = {}
    """Put into the work folder before."""
    channel: bool = False
    devices: list[str] = []
    network: bool = False
    stop_at: str = ""
    """Stop it once it wrote this."""
    first: list[str] = []
    """Another program, run to its end before, in the same run."""


class Outcome(msgspec.Struct, kw_only=True):
    report: RunReport | None = None
    failed: str = ""
    out: bytes = b""
    err: bytes = b""
    channel: bytes = b""
    results: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    """What lies in the work folder and is no result, with why."""
    left: list[str] = []
    """What is still there after the run was erased."""
    pid: int = 0
    """This process."""


class Hearing:
    """Everything one output said."""

    def __init__(self, stop_at: bytes = b"") -> None:
        self.said = bytearray()
        self.stop_at = stop_at
        self.process: SandboxProcess | None = None
        self.stopping: asyncio.Task[RunReport] | None = None

    async def __call__(self, piece: bytes) -> None:
        self.said += piece
        if self.stop_at and self.stop_at in self.said and self.process is not None and self.stopping is None:
            self.stopping = asyncio.create_task(self.process.stop())


async def carry_out(sandbox: Sandbox, order: Order) -> Outcome:
    run = sandbox.new_run()
    out, err, channel = Hearing(order.stop_at.encode()), Hearing(), Hearing()
    outcome = Outcome(pid=os.getpid())
    for name, text in order.files.items():
        (run.work / name).write_text(text)
    try:
        if order.first:
            await (await run.start(order.first, limits=order.limits)).wait()
        out.process = await run.start(
            order.argv,
            limits=order.limits,
            inputs=order.inputs,
            env=order.env,
            stdin=order.stdin,
            on_stdout=out,
            on_stderr=err,
            on_channel=channel if order.channel else None,
            devices=order.devices,
            network=order.network,
        )
        outcome.report = await out.process.wait()
        if out.stopping is not None:
            await out.stopping
    except (SandboxFailed, ValueError) as failed:
        outcome.failed = str(failed)
    outcome.out, outcome.err, outcome.channel = bytes(out.said), bytes(err.said), bytes(channel.said)
    collect(run, outcome)
    await run.erase()
    outcome.left = [str(each) for each in run.folder.parent.iterdir() if each.name == run.folder.name]
    return outcome


def collect(run: SandboxRun, outcome: Outcome) -> None:
    try:
        names = {each.name for each in list_results(run.work)}
    except (NoResult, PermissionError):
        return
    for name in sorted(names | {each.name for each in run.work.iterdir()}):
        try:
            with open_result(run.work, name) as file:
                outcome.results[name] = file.read(4096)
        except NoResult as refused:
            outcome.refused[name] = refused.why
    assert names >= set(outcome.results)


async def main() -> None:
    folder, layer, groups = sys.argv[1:4]
    if layer == "none":
        sandbox = Sandbox(Path(folder), unsandboxed=True, control_groups=groups == "yes")
    else:
        sandbox = Sandbox(Path(folder), layers=[layer], control_groups=groups == "yes")
    await sandbox.open()
    print(msgspec.json.encode(sandbox.checks).decode(), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        outcome = await carry_out(sandbox, msgspec.json.decode(line, type=Order))
        print(msgspec.json.encode(outcome).decode(), flush=True)
    await sandbox.close()


if __name__ == "__main__":
    asyncio.run(main())
