"""``comptoir up --cluster N`` as a person sees it: each part that starts, where everything is, what happens."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
from rich.text import Text

from comptoir import __version__
from comptoir.app import bind
from comptoir.cli import STARTED_S
from comptoir.cli.cluster.local import LocalCluster
from comptoir.cli.config import kinds_from
from comptoir.cli.failure import Failure
from comptoir.cli.greeting import ByTheRun, Greeting, OnOffer, SeenHost, keyless
from comptoir.cli.local_worker import STOP_WITHIN_S, LocalWorker, move_state
from comptoir.cli.quickstart import Quickstart, read_quickstart, write_quickstart
from comptoir.cli.screen import facts, out
from comptoir.cli.target import DEFAULT_DATA
from comptoir.settings import Settings, masked

LOOK_S = 1.0
"""How often the coordinators are asked for news to tell."""
ANSWER_WITHIN_S = 2.0
"""A coordinator that takes longer (paused, perhaps) has no news this time."""
WORKERS = 2
"""Two, so that one can be killed while it answers, and the other goes on."""


Offered = TypeVar("Offered", OnOffer, ByTheRun)


class Launch:
    """One run of it."""

    def __init__(
        self,
        settings: Settings,
        coordinators: int,
        worker_arguments: Sequence[str] | None,
        member_options: Sequence[str],
    ) -> None:
        self._settings = settings
        self._count = coordinators
        self._arguments = worker_arguments
        self._options = member_options
        self._folder = settings.data_path()
        self._data_flag = "" if self._folder == Path(DEFAULT_DATA).resolve() else str(self._folder)
        self._greeting = ClusterGreeting(out(), kinds_from(settings.kinds))
        self._workers: list[LocalWorker] = []
        self._signalled = asyncio.Event()

    async def run(self) -> None:
        """Start everything, serve until a signal, end everything in order.

        Raises:
            OSError: the address is taken; nothing was started.
            Failure: a part can't start.
        """
        settings = self._settings
        fresh = not (self._folder / "signing.key").exists()
        cluster = LocalCluster(
            self._folder,
            coordinators=self._count,
            listener=bind(settings),
            database=settings.database,
            bus=settings.bus,
            options=self._options,
            drain_s=settings.drain_s,
            on_event=self._greeting.part_event,
        )
        self._listen_to_signals(cluster)
        news: asyncio.Task[None] | None = None
        try:
            if await self._started(cluster):
                known = self._known(cluster)
                self._greeting.standing(
                    cluster,
                    self._folder,
                    fresh=fresh,
                    took_s=time.monotonic() - STARTED_S,
                    without_key=keyless(settings),
                )
                news = asyncio.create_task(self._tell_news(cluster, known))
                self._start_workers(cluster, known)
                await self._signalled.wait()
                self._greeting.ending()
        finally:
            if news is not None:
                news.cancel()
            await asyncio.gather(*(one.stop(within_s=settings.drain_s + STOP_WITHIN_S) for one in self._workers))
            await cluster.stop()
            self._listen_no_more()
        self._greeting.stopped(STARTED_S)

    async def _started(self, cluster: LocalCluster) -> bool:
        """Start *cluster*; false when a signal came first."""
        starting = asyncio.create_task(cluster.start())
        signalled = asyncio.create_task(self._signalled.wait())
        await asyncio.wait((starting, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, Failure):
            await starting
        return False

    def _listen_to_signals(self, cluster: LocalCluster) -> None:
        def signalled() -> None:
            if self._signalled.is_set():
                # The second one: nobody waits for anything. PostgreSQL alone still ends in order.
                for worker in self._workers:
                    worker.kill()
                cluster.kill_coordinators()
            self._signalled.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, signalled)

    def _listen_no_more(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _known(self, cluster: LocalCluster) -> Quickstart:
        """Write the balancer's address beside the keys that the first coordinator made."""
        found = read_quickstart(self._folder)
        assert found is not None, "the first coordinator settles people in before it serves"
        known = found._replace(url=_from_here(cluster.url))
        if known != found:
            write_quickstart(self._folder, known)
        return known

    def _start_workers(self, cluster: LocalCluster, known: Quickstart) -> None:
        if self._arguments is None:
            return
        port = str(urlsplit(known.url).port)
        count = WORKERS if "--engine" in self._arguments else 1
        for number in range(1, count + 1):
            state = self._folder / f"worker-{number}"
            arguments = [*self._arguments, "--state", str(state), "--name", f"worker {number}", "--skip-port", port]
            if number > 1:
                # What else runs on this machine is offered once.
                arguments.append("--no-discover")
            move_state(state, known.url)
            worker = LocalWorker(
                arguments, url=known.url, key=known.admin_key, on_event=self._greeting.of_worker(f"worker {number}")
            )
            self._workers.append(worker)
            worker.start()

    async def _tell_news(self, cluster: LocalCluster, known: Quickstart) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        headers = {"Authorization": f"Bearer {known.admin_key}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            while True:
                urls = [one.url for one in cluster.coordinators if one.pid]
                found = await asyncio.gather(*(_asked(session, url) for url in urls))
                self._greeting.hosts_changed(_hosts([one.hosts for one in found]))
                self._greeting.paste(
                    url=known.url, key=known.key, models=_most([one.models for one in found]), data=self._data_flag
                )
                if any(one.hosts for one in found):
                    containers = _most([one.containers for one in found])
                    self._greeting.containers_changed(containers, url=known.url, key=known.key)
                await asyncio.sleep(LOOK_S)


class ClusterGreeting(Greeting):
    """Prints what is news about a cluster."""

    def part_event(self, name: str, kind: str, event: dict[str, Any]) -> None:
        """Tell what became of a part."""
        if kind == "Started":
            self.line("●", f"{name} runs (pid {event['pid']}, {event['took_s'] * 1000:,.0f} ms)", style="green")
        elif kind == "Crashed":
            code = event["code"]
            how = f"was killed by signal {-code}" if code < 0 else f"ended (exit code {code})"
            self.line("✗", f"{name} {how}; restarting in {event['in_s']:g} s", style="red")
        elif kind == "StartFailed":
            self.line("✗", f"{event['why']}; tried again in {event['in_s']:g} s", style="red")
        elif kind == "Draining":
            self.line("■", f"{name} drains, {event['open']} answers open", style="yellow")

    def of_worker(self, name: str) -> Any:
        """Return the listener of one worker."""
        return lambda kind, event: self.worker_event(kind, event, name=name)

    def standing(
        self, cluster: LocalCluster, folder: Path, *, fresh: bool, took_s: float, without_key: str | None
    ) -> None:
        """Say where everything is."""
        console = self._console
        console.print()
        title = (
            ("comptoir", "bold"),
            (f" {__version__}", "dim"),
            f"  one trading post, {len(cluster.coordinators)} coordinators",
        )
        console.print(Text.assemble(*title))
        console.print()
        kept = "new: an operator and a demo buyer" if fresh else "as you left it"
        rows: list[tuple[str, object]] = [("listening", Text(f"{cluster.url}  (a balancer)", style="bold cyan"))]
        rows += [(one.name, f"{one.url}  pid {one.pid}") for one in cluster.coordinators]
        for name, url, part in (("database", cluster.database, cluster.postgres), ("bus", cluster.bus, cluster.redis)):
            rows.append((name, masked(url) + (f"  pid {part.pid}" if part is not None else "")))
        rows += [
            ("data", f"{folder}  ({kept})"),
            ("keys", f"{folder}/quickstart.env  (only you can read it)"),
            ("logs", f"{folder}/logs"),
            ("keyless", without_key),
            ("ready in", f"{took_s:.1f} s"),
        ]
        console.print(facts(rows), soft_wrap=True)
        console.print()
        console.print(
            Text("Kill any of these (kill -9 PID) while it answers: it is restarted, and nothing is lost.", "dim")
        )
        console.print()

    def ending(self) -> None:
        """Say that it stops."""
        self.draining_began()
        self.line(
            "■", "draining: workers, coordinators, Redis, PostgreSQL (Ctrl-C again stops at once)", style="yellow"
        )


def _from_here(url: str) -> str:
    for listening, reachable in (("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):
        url = url.replace(f"//{listening}:", f"//{reachable}:")
    return url


class CoordinatorView(NamedTuple):
    """What one coordinator sees."""

    hosts: Sequence[SeenHost] = ()
    models: Sequence[OnOffer] = ()
    containers: Sequence[ByTheRun] = ()


async def _asked(session: aiohttp.ClientSession, url: str) -> CoordinatorView:
    """Return what one coordinator sees; nothing when it doesn't answer."""
    try:
        hosts, models, containers = [
            await _json(session, f"{url}/house/{what}") for what in ("hosts", "models", "containers")
        ]
        return CoordinatorView(
            [
                SeenHost(one["id"], one["status"], one["gpu"], [offer["name"] for offer in one["models"]])
                for one in hosts["hosts"]
            ],
            [
                OnOffer(
                    one["name"],
                    one["kinds"],
                    one["hosts"],
                    one["price_in_uusd_per_mtok"],
                    one["price_out_uusd_per_mtok"],
                )
                for one in models["models"]
            ],
            [
                ByTheRun(one["name"], one["external"], one["hosts"], one["price_uusd_per_run"])
                for one in containers["containers"]
            ],
        )
    except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
        # It starts, stops, or was paused by somebody who tries what happens then.
        return CoordinatorView()


async def _json(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as answer:
        return await answer.json()


def _hosts(views: Sequence[Sequence[SeenHost]]) -> list[SeenHost]:
    """Put together what coordinators see; the one that a host is linked to knows best that it is active."""
    found: dict[str, SeenHost] = {}
    for view in views:
        for host in view:
            if host.id not in found or host.status == "active":
                found[host.id] = host
    return list(found.values())


def _most(views: Sequence[Sequence[Offered]]) -> list[Offered]:
    """Put together what coordinators see on offer, by name; of one name the view with most hosts."""
    found: dict[str, Offered] = {}
    for view in views:
        for one in view:
            if one.name not in found or one.hosts > found[one.name].hosts:
                found[one.name] = one
    return sorted(found.values())
