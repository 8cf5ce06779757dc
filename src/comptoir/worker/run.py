"""A whole worker: starts the engines, registers the host, runs link and pulse, and drains on stop."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from comptoir import __version__
from comptoir.kinds import load_kinds
from comptoir.kit.folderlock import FolderTaken
from comptoir.kit.signing import SigningKey
from comptoir.link import Pulse, PulseAnswer
from comptoir.worker import health, register
from comptoir.worker.addresses import Addresses, split_addresses
from comptoir.worker.backoff import Backoff
from comptoir.worker.engines.base import Engine, EngineError
from comptoir.worker.engines.discovery import discover_local
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.engines.registry import EngineSpec, make_engine
from comptoir.worker.errors import HostForgotten, KeyRefused, RegistrationRefused, StateUnusable
from comptoir.worker.events import (
    Draining,
    Event,
    HardwareFound,
    OfferChanged,
    OffersIgnored,
    OnEvent,
    Reconnecting,
    Registered,
    Stopped,
    ignore,
)
from comptoir.worker.files import HostFiles, InputRules
from comptoir.worker.leases import LeaseTable
from comptoir.worker.loop import JobRunner
from comptoir.worker.offering import FREE, Offering
from comptoir.worker.pulse import PulseThread
from comptoir.worker.receipt_store import ReceiptStore
from comptoir.worker.state import HostState, StateFile, kept_directory
from comptoir.worker.uplink import Uplink

_log = logging.getLogger(__name__)

SOFTWARE = f"comptoir/{__version__}"

MODELS_REFRESH_S = 30.0
"""How often the engines are asked what they serve now."""

CONFLICT = 409
"""HTTP status of a registration whose signing key belongs to another host."""

FLUSH_S = 1.0
"""Most seconds, after the drain, for the last failures to reach the coordinator."""

UNLINKED_PULSES_MAX = 2
"""Consecutive pulses answered with ``linked: false`` after which the worker reconnects."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that its owner configures for a worker."""

    url: str
    """The coordinator, ``https://host[:port][/prefix]``; several of one trading post are separated by commas."""
    key: str | None = None
    """The owner's ``ck_…`` key, needed only to register."""
    invitation: str | None = None
    """The operator's invitation, where hosts register by one; needed only to register."""
    engines: list[EngineSpec] = []
    discover: bool = False
    """Also serve what `discover_local` finds on this machine."""
    discover_skip_ports: list[int] = []
    slots: int = 4
    """Jobs at once, over all engines."""
    threads: int | None = None
    """Threads for engines that compute in this process; default: all processors."""
    kinds: list[str] = []
    """Kinds of work beside the built-in ones, each as ``package.module:Class``; must be in the coordinator's setting
    ``kinds`` too."""
    prices: Mapping[str, int] = msgspec.field(default_factory=lambda: FREE)
    """Micro-dollars per million, by unit."""
    model_prices: dict[str, dict[str, int]] = {}
    """The same by model, for models with prices of their own."""
    promotions: bool = True
    """Whether to take jobs that might be paid from promotional credit, which buys and never leaves."""
    state_dir: str | None = None
    """Where the host key is stored; default: below ``~/.local/state/comptoir``."""
    work_dir: str | None = None
    """Where jobs have their files while they run; several workers may share it. Default: ``work`` in *state_dir*."""
    inputs: InputRules = InputRules()
    """What is taken as inputs of jobs with files."""
    name: str | None = None
    region: str | None = None
    measure: bool = True
    """Whether to run a short prompt through each engine before offering it."""
    drain_s: float = 30.0
    """Most seconds for running jobs to finish after stop."""


async def run_worker(
    config: WorkerConfig, *, on_event: OnEvent | None = None, stop: asyncio.Event | None = None
) -> None:
    """Run a worker until *stop* is set, then drain and return.

    *on_event* is called on the event loop and must return at once.

    Raises:
        WorkerError: the coordinator refuses this host, or the state file is unusable; the message says what to do.
        EngineError: no engine works.
        KindsError: a kind can't be loaded.
    """
    await _Worker(config, _guarded(on_event) if on_event else ignore, stop or asyncio.Event()).run()


class _Worker:
    def __init__(self, config: WorkerConfig, on_event: OnEvent, stop: asyncio.Event) -> None:
        self._config = config
        self._on_event = on_event
        self._stop = stop
        urls = split_addresses(config.url)
        self._addresses = Addresses(urls)
        directory = Path(config.state_dir) if config.state_dir else kept_directory(urls)
        self._state_file = StateFile(directory, urls)
        self._receipts = ReceiptStore(directory / "receipts")
        self._work = Path(config.work_dir) if config.work_dir else directory / "work"
        self._files = HostFiles(self._work / "jobs", addresses=self._addresses, rules=config.inputs)
        self._kinds = load_kinds(config.kinds)
        self._offering = Offering(
            kinds=self._kinds, prices=config.prices, model_prices=config.model_prices, on_event=on_event,
            promotions=config.promotions,
        )  # fmt: skip
        self._table = LeaseTable(self._kinds)
        self._hardware = health.Hardware("", 0, 0)
        self._unlinked = 0
        self._ignored: dict[str, str] = {}

    async def run(self) -> None:
        state = self._state_file.open()
        self._receipts.open()
        try:
            gpus = await asyncio.to_thread(health.detect_gpus)
            self._hardware = health.describe(gpus)
            self._on_event(HardwareFound(self._hardware.gpu, self._hardware.vram_mib))
            if not await self._unless_stopped(self._start_engines()):
                return
            await self._open_files()
            await self._serve_as_registered(state)
        finally:
            await self._offering.close()
            await self._files.close()
            self._receipts.close()
            self._state_file.close()

    async def _open_files(self) -> None:
        """Erase the files of jobs that a killed worker left, and make room for ours.

        Raises:
            StateUnusable: the folder can't be used.
        """
        needed = any(self._kinds.stored(name).files for model in self._offering.models for name in model.kinds)
        try:
            await asyncio.to_thread(self._files.open, needed=needed)
        except (OSError, FolderTaken) as error:
            raise StateUnusable(f"{self._work} can't be used: {error}; choose another (--work DIR)") from error

    async def _serve_as_registered(self, state: HostState) -> None:
        """Register if needed, and serve; once more as a new host if the coordinator has retired this one meanwhile."""
        registered = await self._registered(state)
        if registered is None:
            return
        try:
            await self._serve(registered)
        except HostForgotten as forgotten:
            _log.warning("%s; registering as a new host", forgotten)
            fresh = self._state_file.fresh()
            self._state_file.write(fresh)
            anew = await self._registered(fresh)
            if anew is not None:
                await self._serve(anew)

    async def _start_engines(self) -> None:
        config = self._config
        engines: list[Engine] = []
        for spec in config.engines:
            try:
                engines.append(
                    make_engine(spec, slots=config.slots, threads=config.threads, folder=self._work / "runs")
                )
            except EngineError as error:
                self._offering.skipped(spec.engine, error)
        if config.discover:
            found = await discover_local(skip_ports=config.discover_skip_ports)
            engines += [OpenAIEngine(base_url=server.base_url) for server in found]
        await self._offering.start(engines, measured=config.measure)

    async def _registered(self, state: HostState) -> HostState | None:
        """Return the state with id and key, registering (and storing them) first if needed; None when stopped."""
        config = self._config
        path = str(self._state_file.path)
        if state.api_key:
            self._on_event(Registered(state.host_id, False, path))
            return state
        # Written before the call, so that an unwritable directory leaves no orphan at the coordinator.
        self._state_file.write(state)
        backoff, retried = Backoff(), False
        while not self._stop.is_set():
            try:
                answer = await register.register(
                    self._addresses.current, self._registration(state), owner_key=config.key
                )
            except RegistrationRefused as refused:
                if refused.status != CONFLICT or retried:
                    raise
                retried = True
                # The coordinator knows the signing key, but the host's key is not stored here: an earlier process ended
                # between the answer and the write. A lost host key can't be recovered, so register as a new host.
                _log.warning("%s; registering as a new host", refused)
                state = self._state_file.fresh()
                self._state_file.write(state)
                continue
            except register.RegistrationLater as later:
                at_once = self._addresses.failed()
                wait_s = backoff.soon_s() if at_once else max(backoff.next_s(), later.wait_s)
                self._on_event(Reconnecting(wait_s, str(later)))
                await self._unless_stopped(asyncio.sleep(wait_s))
                continue
            state = msgspec.structs.replace(state, host_id=answer.host_id, api_key=answer.api_key)
            self._state_file.write(state)
            self._on_event(Registered(state.host_id, True, path, answer.bond_uusd))
            return state
        return None

    def _registration(self, state: HostState) -> register.Registration:
        config = self._config
        has = health.measure_capacity(self._work if self._work.exists() else self._state_file.path.parent)
        return register.Registration(
            gpu=self._hardware.gpu,
            vram_mib=self._hardware.vram_mib,
            gpus=self._hardware.gpus,
            cpu_millis=has.cpu_millis,
            memory_mib=has.memory_mib,
            disk_mib=has.disk_mib,
            slots=config.slots,
            models=[register.offer_json(model) for model in self._offering.models],
            public_key=register.public_key_of(state.seed),
            backend=self._offering.backend,
            software=SOFTWARE,
            region=config.region,
            name=config.name,
            invitation=config.invitation,
        )

    async def _serve(self, state: HostState) -> None:
        config = self._config
        signing_key = SigningKey(bytes.fromhex(state.seed))
        runner = JobRunner(
            table=self._table, signing_key=signing_key, slots=config.slots, on_event=self._on_event,
            on_trouble=self._offering.doubt, files=self._files,
        )  # fmt: skip
        self._files.key = state.api_key
        runner.host_id = state.host_id
        runner.offer(self._offering.routes)
        uplink = Uplink(
            addresses=self._addresses,
            key=state.api_key,
            software=SOFTWARE,
            table=self._table,
            jobs=runner,
            receipts=self._receipts,
            on_event=self._on_event,
        )
        uplink.offer(self._offering.models, config.slots)
        uplink.telling.offer(self._offering.routes)
        link = asyncio.create_task(uplink.run())
        refresh = asyncio.create_task(self._refresh(runner, uplink))
        stopping = asyncio.create_task(self._stop.wait())
        pulses: list[PulseThread] = []
        uplink.pulse_s.add_done_callback(self._pulse_starter(state, uplink, pulses))
        abandoned = 0
        try:
            await asyncio.wait((link, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not link.done():
                abandoned = await self._drain(runner, uplink, link)
            await uplink.close()
            await link
        except HostForgotten:
            raise
        except KeyRefused as error:
            raise KeyRefused(f"{error.message} (state file: {self._state_file.path})") from error
        finally:
            uplink.pulse_s.cancel()
            for pulse in pulses:
                pulse.stop()
            for task in (refresh, stopping, link):
                task.cancel()
            abandoned += await runner.abandon()
            await asyncio.wait((refresh, stopping, link))
            self._on_event(Stopped(abandoned))

    async def _drain(self, runner: JobRunner, uplink: Uplink, link: asyncio.Task[None]) -> int:
        """Accept no more jobs and finish running ones; return how many could not be finished in time."""
        runner.draining = True
        uplink.drain()
        self._on_event(Draining(len(self._table)))
        empty = asyncio.create_task(self._table.empty())
        try:
            await asyncio.wait((empty, link), timeout=self._config.drain_s, return_when=asyncio.FIRST_COMPLETED)
            if empty.done() or link.done():
                return 0
            abandoned = await runner.abandon()
            await asyncio.wait((empty, link), timeout=FLUSH_S, return_when=asyncio.FIRST_COMPLETED)
            return abandoned
        finally:
            empty.cancel()

    async def _refresh(self, runner: JobRunner, uplink: Uplink) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._look(uplink)
            due_s = loop.time() + MODELS_REFRESH_S
            while await self._offering.wait_for_doubt(due_s):
                await self._ask_engines(runner, uplink, doubted=True)
            await self._ask_engines(runner, uplink)

    async def _ask_engines(self, runner: JobRunner, uplink: Uplink, *, doubted: bool = False) -> None:
        try:
            changed = await self._offering.refresh(doubted=doubted)
        except Exception:  # A third-party engine's bug in listing models must not end the refreshing of all others.
            _log.exception("asking the engines for their models failed")
            return
        if changed:
            runner.offer(self._offering.routes)
            uplink.offer(self._offering.models, self._config.slots)
            uplink.telling.offer(self._offering.routes)
            self._on_event(OfferChanged([model.name for model in self._offering.models]))

    async def _look(self, uplink: Uplink) -> None:
        try:
            await uplink.telling.refresh()
        except Exception:  # A third-party engine's bug in telling must not end the refreshing.
            _log.exception("asking the containers for their resources failed")

    def _pulse_starter(
        self, state: HostState, uplink: Uplink, pulses: list[PulseThread]
    ) -> Callable[[asyncio.Future[float]], None]:
        loop = asyncio.get_running_loop()

        def answered(answer: PulseAnswer) -> None:
            if answer.ignored != self._ignored:
                self._ignored = answer.ignored
                self._on_event(OffersIgnored(answer.ignored))
            self._unlinked = 0 if answer.linked else self._unlinked + 1
            if self._unlinked >= UNLINKED_PULSES_MAX:
                self._unlinked = 0
                uplink.cut(alive_s=uplink.pulse_s.result())

        def start(pulse_s: asyncio.Future[float]) -> None:
            if pulse_s.cancelled():
                return
            pulse = PulseThread(
                addresses=self._addresses,
                key=state.api_key,
                pulse_s=pulse_s.result(),
                snapshot=self._snapshot,
                on_answer=lambda answer: _call_soon(loop, answered, answer),
            )
            pulses.append(pulse)
            pulse.start()

        return start

    def _snapshot(self) -> Pulse:
        """Return the current pulse; called in the pulse's thread."""
        hardware = self._hardware
        busy = health.utilization(health.detect_gpus()) if hardware.gpus else 0.0
        return Pulse(gpu_utilization=busy, running=self._table.running, gpu=hardware.gpu, vram_mib=hardware.vram_mib)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await *work*, or cancel it as soon as the worker is to stop; return whether it was finished."""
        task = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return True
            return False
        finally:
            stopping.cancel()
            task.cancel()
            await asyncio.wait((task, stopping))


def _guarded(on_event: OnEvent) -> OnEvent:
    def guarded(event: Event) -> None:
        try:
            on_event(event)
        except Exception:  # What a listener (a terminal that went away) does wrong must not cost a job.
            _log.exception("the listener failed on %s", type(event).__name__)

    return guarded


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[PulseAnswer], None], answer: PulseAnswer) -> None:
    """Pass *answer* to the loop, unless it has ended (the thread outlives it by one pulse at most)."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, answer)
