"""Work with files whose hosts are killed in the middle, a linked one and a polling one: it is done again from the
start, paid for once, receipted, and nothing of the buyer's is left on either disk."""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from comptoir.kinds.files import extra_of
from comptoir.link import Frame
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from comptoir.worker.engines.ffmpeg.program import find_program
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig
from tests.chaos.worker import main as work_linked
from tests.journeys.forked import Forked
from tests.polling_host import HostConfig
from tests.polling_host import main as work_polling
from tests.post import Post, open_post
from tests.working import Customer

LEASE_S = 2.0
"""A polling host is lost after that silence; ours show a sign of life ten times as often."""

FEE_BPS = 1_200


@dataclass(frozen=True)
class Trade:
    """One kind with files: how it is sold and bought, and when a host of it is in the middle."""

    kind: str
    model: str
    engine: str
    prices: dict[str, int]
    """Micro-dollars per million of each unit."""
    files: Callable[[Path], dict[str, bytes]]
    """Makes what the buyer brings, with a folder to work in."""
    body: dict[str, Any]
    """Of the order, without its inputs."""
    middle: Callable[[Sequence[Frame]], bool]
    """Whether a host is in the middle that has sent these frames."""
    made: dict[str, bytes | None]
    """Names and content of what is made; None: any."""
    cost_uusd: int = 0
    """0: it depends on the time."""
    target: str = ""
    """Where the kind is, if it does not ship."""
    options: dict[str, str] = field(default_factory=dict)


PRESS = Trade(
    kind="press",
    model="press",
    engine="tests.kinds.press.engine:PressEngine",
    prices={"page": 1_000_000_000},
    files=lambda folder: {"a.txt": b"one\n" * 50_000, "b.txt": b"two\n"},
    body={"title": "news"},
    middle=lambda frames: "page 0" in "".join([frame.text for frame in frames]),
    made={"news-0.txt": b"ONE\n" * 50_000, "news-1.txt": b"TWO\n"},
    cost_uusd=2_000,
    target="tests.kinds.press:Press",
)

PYTHON = Trade(
    kind="python",
    model="python",
    engine="python",
    prices={"wall_ms": 1_000_000, "cpu_ms": 500_000},
    files=lambda folder: {"numbers.txt": b"1\n2\n" * 50_000},
    body={
        "code": (
            "import time\ndef main(factor):\n    total = sum(map(int, open('numbers.txt')))\n"
            "    open('total.txt', 'w').write(str(total * factor))\n    print('half', flush=True)\n"
            "    time.sleep(1.5)\n    return total * factor"
        ),
        "input": 7,
    },
    middle=lambda frames: "half" in "".join([frame.text for frame in frames]),
    made={"total.txt": b"1050000"},
)


def film(folder: Path) -> dict[str, bytes]:
    """Make a film that takes seconds to make again."""
    path = folder / "clip.mp4"
    words = ("-f", "lavfi", "-i", "testsrc=size=640x360:rate=30:duration=40", "-c:v", "libx264", "-preset", "ultrafast")
    subprocess.run([find_program().ffmpeg, "-v", "error", "-nostdin", *words, str(path)], check=True, timeout=60)
    return {path.name: path.read_bytes()}


def half_made(frames: Sequence[Frame]) -> bool:
    told = [progress.done for frame in frames if (progress := extra_of(frame).progress) is not None]
    return any(done is not None and 0 < done < 1 for done in told)


FFMPEG = Trade(
    kind="ffmpeg",
    model="ffmpeg",
    engine="ffmpeg",
    prices={"video_ms": 100_000},
    files=film,
    body={"output_format": "mkv", "preset": "slow", "seconds_max": 60},
    middle=half_made,
    made={"clip.mkv": None},
)


@dataclass
class Hosts:
    """Hosts of one trade as processes, each with its folder."""

    post: Post
    trade: Trade
    folder: Path
    options: dict[str, str]
    running: list[Forked] = field(default_factory=list)

    def linked(self, name: str, *, work: str = "") -> Forked:
        """Start our worker; *work* names the folder of another that it shares."""
        config = WorkerConfig(
            url=self.post.url,
            kinds=[self.trade.target] if self.trade.target else [],
            engines=[EngineSpec(self.trade.engine, dict(self.options))],
            prices=self.trade.prices,
            slots=1,
            measure=False,
            state_dir=str(self.folder / name),
            work_dir=str(self.folder / (work or name) / "work"),
            drain_s=1.0,
        )
        return self._start(work_linked, name, config)

    def polling(self, name: str) -> Forked:
        """Start a host without our worker."""
        config = HostConfig(
            url=self.post.url,
            kinds=[self.trade.target] if self.trade.target else [],
            engine=EngineSpec(self.trade.engine, dict(self.options)),
            prices=self.trade.prices,
            folder=str(self.folder / name / "work"),
        )
        return self._start(work_polling, name, config)

    def _start(self, main: Any, name: str, config: Any) -> Forked:
        (self.folder / name).mkdir(exist_ok=True)
        path = self.folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(config))
        process = Forked(main, str(path), log=self.folder / f"{name}.log")
        self.running.append(process)
        return process

    async def kill(self, process: Forked) -> None:
        """End one as a machine that loses its power does."""
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def kill_all(self) -> None:
        for process in self.running:
            await self.kill(process)

    def left(self, name: str) -> list[str]:
        """Return what of a buyer's is on the disk of one: files of jobs, and folders of programs."""
        folders = (self.folder / name / "work").glob("*/worker_*/*")
        return [str(each.relative_to(self.folder)) for each in folders if each.name != "lock"]

    async def until_erased(self, name: str) -> None:
        async with asyncio.timeout(20):
            while self.left(name):
                await asyncio.sleep(0.01)


async def until_in_the_middle(post: Post, job_id: bytes, trade: Trade, hosts: list[bytes]) -> None:
    """Wait until a host that is none of *hosts* is in the middle, and note it."""
    async with asyncio.timeout(30):
        while True:
            job = post.core.jobs.live.get(job_id)
            assert job is not None
            sent = job.frames[job.segment_start :]
            if job.lease is not None and job.lease.host_id not in hosts and trade.middle(sent):
                hosts.append(job.lease.host_id)
                return
            await asyncio.sleep(0.01)


async def ended(buyer: Customer, job: str) -> Any:
    """Wait for a job's end and return its view."""
    async with asyncio.timeout(60):
        while True:
            answer = await buyer.ask("GET", f"/house/jobs/{job}")
            if answer.json["state"] not in ("queued", "running"):
                return answer.json
            await asyncio.sleep(0.02)


async def files_of(buyer: Customer) -> list[tuple[str, bytes]]:
    """Return name and content of all that the buyer has."""
    found = (await buyer.ask("GET", "/house/files")).json["files"]
    return sorted([(each["name"], (await buyer.ask("GET", f"/house/files/{each['id']}")).body) for each in found])


@pytest.mark.parametrize(
    "trade", [PRESS, PYTHON, pytest.param(FFMPEG, marks=pytest.mark.proof)], ids=lambda trade: trade.kind
)
async def test_both_hosts_are_killed_and_a_third_does_it_once(tmp_path: Path, trade: Trade) -> None:
    gate = tmp_path / "gate"
    kinds = (trade.target,) if trade.target else ()
    async with (
        open_post(tmp_path, kinds=kinds, lease_s=LEASE_S, fee_bps=FEE_BPS) as post,
        aiohttp.ClientSession() as session,
    ):
        hosts = Hosts(post, trade, tmp_path, trade.options | ({"gate": str(gate)} if trade is PRESS else {}))
        try:
            await journey(post, Customer(session, post.url, post.buyer_key), hosts, gate)
        finally:
            await hosts.kill_all()


async def journey(post: Post, buyer: Customer, hosts: Hosts, gate: Path) -> None:
    trade, lost = hosts.trade, list[bytes]()
    first = hosts.linked("first")
    await post.until_linked()
    files = await asyncio.to_thread(trade.files, hosts.folder)
    inputs = [{"file": await buyer.put(content, name)} for name, content in files.items()]
    free_uusd = await free(buyer)
    order = {"kind": trade.kind, "model": trade.model, "body": trade.body | {"inputs": inputs}}
    answer = await buyer.ask("POST", "/house/jobs", order)
    assert answer.status == 201, answer
    job, job_id = answer.json["id"], bytes.fromhex(answer.json["id"][4:])

    await until_in_the_middle(post, job_id, trade, lost)
    second = hosts.polling("second")
    await hosts.kill(first)
    await until_in_the_middle(post, job_id, trade, lost)
    assert hosts.left("first") and hosts.left("second")
    await hosts.kill(second)
    await asyncio.to_thread(gate.touch)
    hosts.linked("third", work="first")
    view = await ended(buyer, job)

    assert (view["state"], view["finish_reason"]) == ("completed", "stop"), view
    check_money(trade, view, free_uusd - await free(buyer))
    verdict = verify(await post.core.receipts.envelope_of(job_id), read_registry(await post.core.receipts.registry()))
    assert verdict.ok and verdict.statement is not None, verdict
    paid = [unit.count for part in verdict.statement.predicate.segments for unit in part.units if unit.count]
    assert paid == [part["count"] for part in view["units"] if part["count"]]
    # What the lost hosts delivered is nobody's result, and goes; what the buyer brought and was made stays.
    wanted = files | trade.made
    async with asyncio.timeout(20):
        while len(kept := await files_of(buyer)) != len(wanted):
            await asyncio.sleep(0.05)
    assert [(name, content if wanted[name] is not None else None) for name, content in kept] == sorted(wanted.items())
    hosts.polling("second")
    for name in ("first", "second"):
        await hosts.until_erased(name)
    assert await audit(post.core.db) == []


def check_money(trade: Trade, view: Any, paid_uusd: int) -> None:
    """The buyer paid once: what the last host did, which alone is paid."""
    *lost, last = view["attempts"]
    assert [each["state"] for each in view["attempts"]] == ["lost", "lost", "done"]
    assert [each["paid_uusd"] for each in lost] == [0, 0]
    assert view["cost_uusd"] == paid_uusd > 0
    assert last["paid_uusd"] == paid_uusd - paid_uusd * FEE_BPS // 10_000
    assert view["completion_tokens"] == last["tokens"]
    assert trade.cost_uusd in (0, paid_uusd)


async def free(buyer: Customer) -> int:
    found: int = (await buyer.ask("GET", "/house/me")).json["account"]["free_uusd"]
    return found
