"""One run: its folder, its processes, what they write, the limits that they are held to, and how it ended."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from comptoir.worker.sandbox import launch, usage
from comptoir.worker.sandbox.cgroups import Group
from comptoir.worker.sandbox.folders import PARTS, erase, give_to
from comptoir.worker.sandbox.layers import Layer
from comptoir.worker.sandbox.outward import ENVIRONMENT, Outward
from comptoir.worker.sandbox.syscall_filter import syscall_filter
from comptoir.worker.sandbox.types import Bound, EndReason, RunReport, SandboxFailed, SandboxLimits, Sink
from comptoir.worker.sandbox.view import PLACES, device_groups, environment, make_view

LOOK_S = 0.1
"""How often what a run uses is looked at. What the kernel does not hold by itself may be passed for that long."""
DYING_S = 10.0
"""How long a run may take to die after it was killed; a process that hangs in a device's driver takes longer."""
STARTING_S = 20.0
"""How long the walls may take to be built on a busy machine."""
CHUNK_BYTES = 64 * 1024
FREE_BYTES_MIN = 256 * 1024 * 1024
"""What every run leaves free on the disk, whatever its own limit says."""
OWN_PROCESSES = 2
"""Of the walls themselves, beside the program's."""
UID_FIRST = 1_900_000_000
"""Users of runs, where the worker is root: this number plus that of the run's first process, which no other run has.
The range belongs to nobody (systemd's list of users and groups)."""

_SIGKILL, _SIGXCPU, _SIGXFSZ = 128 + 9, 128 + 24, 128 + 25
"""Exit codes of programs that these signals killed."""

_log = logging.getLogger(__name__)


class _LastWord(msgspec.Struct):
    """The last line of the watchman."""

    code: int
    ran: bool
    cpu_s: float
    rss_bytes: int


class _Pipes(NamedTuple):
    """Our ends of what joins us with a run, beside its standard input and outputs."""

    control: socket.socket
    door: socket.socket | None
    """Where the socket comes from that listens inside."""
    channel: int
    """-1: it has none."""


_NEVER_RAN = _LastWord(128 + 9, False, 0.0, 0)


def _came(there: asyncio.Future[None]) -> None:
    if not there.done():
        there.set_result(None)


class SandboxRun:
    """The folder of one run, in which programs are started, and which is erased at the end."""

    def __init__(self, layer: Layer, folder: Path, name: str) -> None:
        self._layer = layer
        self._name = name
        self.folder = folder
        self._started = 0
        self._last: SandboxProcess | None = None

    @property
    def work(self) -> Path:
        """The program's own folder, as the worker sees it: put inputs here before, take results from here after."""
        return self.folder / "work"

    def inside(self, path: str) -> str:
        """Return how the program spells a *path* below one of its places: the same, unless it is unsandboxed."""
        if self._layer.sandboxed:
            return path
        for part, place in PLACES.items():
            if path == place or path.startswith(place + "/"):
                return str(self.folder / part) + path[len(place) :]
        return path

    async def start(
        self,
        argv: Sequence[str],
        *,
        limits: SandboxLimits,
        inputs: Sequence[Bound] = (),
        env: Mapping[str, str] | None = None,
        stdin: bytes | AsyncIterator[bytes] = b"",
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        on_channel: Sink | None = None,
        network: bool = False,
        devices: Sequence[str] = (),
    ) -> "SandboxProcess":
        """Start a program in its work folder, behind every wall; a run has one at a time.

        Args:
            argv: the program by its absolute path inside, and its arguments.
            env: all that it has of an environment, beside PATH, HOME, TMPDIR, USER and LANG.
            stdin: read as far as the program reads it; ends where this ends.
            on_channel: takes what is written to descriptor 3, which is open only with it.
            network: whether it may reach public addresses, over HTTPS, through a proxy that the worker runs.
            devices: paths below /dev, such as a GPU's; no others but null, zero, full, random and urandom are there.

        Raises:
            ValueError: an argument can't be. SandboxFailed: a wall could not be built; nothing ran.
        """
        if not argv or not os.path.isabs(argv[0]) or any("\0" in word for word in argv):
            raise ValueError("a program is named by its absolute path")
        if network and not self._layer.sandboxed:
            raise ValueError("without a sandbox, a network can't be limited to public addresses")
        if self._last is not None and not self._last.over:
            raise ValueError("a run has one program at a time")
        self._started += 1
        env = (ENVIRONMENT if network else {}) | dict(env or {})
        orders = self._orders(limits, env, inputs, devices) | {"argv": list(argv), "network": network}
        process = SandboxProcess(self._layer, self.folder, limits, orders)
        sinks = (on_stdout, on_stderr, on_channel)
        await process._start(f"{self._name}-{self._started}", sinks, stdin)
        self._last = process
        return process

    def _orders(
        self, limits: SandboxLimits, env: Mapping[str, str], inputs: Sequence[Bound], devices: Sequence[str]
    ) -> dict[str, Any]:
        """Put together all but what is only known when the run's user is."""
        words = environment(env)
        words |= {name: self.inside(words[name]) for name in ("HOME", "TMPDIR")}
        counted = self._layer.groups is not None
        able = sorted(os.sched_getaffinity(0))
        first = os.getpid() + self._started
        cores = [able[(first + number) % len(able)] for number in range(min(limits.cores, len(able)))]
        # Above the limit, so that a look, which counts all processes, is first and says which limit it was.
        cpu_s = int(limits.cpu_s) + 1
        most = {
            "RLIMIT_CORE": 1,  # Not 0: a program that takes dumps is started all the same, and only 1 stops it.
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_MEMLOCK": 64 * 1024,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_SIGPENDING": 1024,
        }
        if self._layer.sandboxed:
            most["RLIMIT_NPROC"] = limits.processes + OWN_PROCESSES
        if not counted:
            most["RLIMIT_DATA"] = limits.memory_bytes
        return {
            "layer": self._layer.name,
            "bwrap": self._layer.bwrap,
            "root": str(self.folder / "root"),
            "cwd": self.inside(PLACES["work"]),
            "env": words,
            "rlimits": {name: (value, value) for name, value in most.items()} | {"RLIMIT_CPU": (cpu_s, cpu_s + 1)},
            "cpus": cores,
            "stage": self._layer.sandboxed and os.geteuid() == 0,
            "groups": device_groups(devices),
            "filter": syscall_filter(os.uname().machine, hidden_memory=not counted).hex(),
            "inputs": inputs,
            "devices": devices,
        }

    async def erase(self) -> None:
        """Erase everything of this run; idempotent. What it may have started has to be over.

        It is done also if the caller is cancelled meanwhile: a thread that has not begun would never begin.
        """
        await asyncio.shield(asyncio.to_thread(erase, self.folder))


class SandboxProcess:
    """A program that runs, or ran. Only `SandboxRun.start` makes one."""

    def __init__(self, layer: Layer, folder: Path, limits: SandboxLimits, orders: dict[str, Any]) -> None:
        self._layer, self._folder, self._limits, self._orders = layer, folder, limits, orders
        self._group: Group | None = None
        self._watchman: asyncio.subprocess.Process
        self._child = 0
        self._reason = EndReason.EXITED
        self._killed = False
        self._over = asyncio.Event()
        self._output_bytes = 0
        self._cpu_s = 0.0
        self._memory_bytes = 0
        self._began_at = 0.0
        self._refused = ""
        self._outward: Outward | None = None
        self._report: asyncio.Task[RunReport]

    @property
    def over(self) -> bool:
        """Whether all of it is dead and its report made."""
        return self._report.done()

    async def wait(self) -> RunReport:
        """Wait until every process of it is dead and what it wrote was taken; may be asked again and again.

        Raises:
            SandboxFailed: a wall could not be built, and the program never ran. What a sink raised.
        """
        return await asyncio.shield(self._report)

    async def stop(self) -> RunReport:
        """Kill all of it; idempotent."""
        self._kill(EndReason.STOPPED)
        return await self.wait()

    async def _start(
        self, name: str, sinks: tuple[Sink | None, Sink | None, Sink | None], stdin: bytes | AsyncIterator[bytes]
    ) -> None:
        ours, theirs = socket.socketpair()
        doors = socket.socketpair() if self._orders["network"] else None
        channel = os.pipe() if sinks[2] is not None else None
        passed = [theirs.fileno(), doors[1].fileno() if doors else -1, channel[1] if channel else -1]
        self._began_at = time.monotonic()
        try:
            self._watchman = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launch.__file__),
                *map(str, (passed[0], os.getpid(), *passed[1:])),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[each for each in passed if each >= 0],
                env={},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            if doors:
                doors[0].close()
            if channel:
                os.close(channel[0])
            raise
        finally:
            theirs.close()
            if doors:
                doors[1].close()
            if channel:
                os.close(channel[1])
        pipes = _Pipes(ours, doors[0] if doors else None, channel[0] if channel else -1)
        self._report = asyncio.create_task(self._follow(name, pipes, sinks, stdin))

    async def _follow(
        self,
        name: str,
        pipes: _Pipes,
        sinks: tuple[Sink | None, Sink | None, Sink | None],
        stdin: bytes | AsyncIterator[bytes],
    ) -> RunReport:
        """Lead the run from its orders to its report."""
        assert self._watchman.stdout is not None and self._watchman.stderr is not None
        reader, writer = await asyncio.open_unix_connection(sock=pipes.control)
        taking: list[Coroutine[None, None, None]] = [
            self._take(self._watchman.stdout, sinks[0], self._count_output),
            self._take(self._watchman.stderr, sinks[1], self._count_output),
        ]
        if pipes.channel >= 0:
            taking.append(self._take_channel(pipes.channel, sinks[2]))
        tasks = [asyncio.create_task(each) for each in taking]
        for task in tasks:
            task.add_done_callback(self._stop_if_failed)
        side = [asyncio.create_task(self._feed(stdin)), asyncio.create_task(self._hold_wall())]
        side[0].add_done_callback(self._stop_if_failed)
        try:
            try:
                await self._order(name, reader, writer)
            except (SandboxFailed, OSError):
                if not self._killed:
                    raise
                return self._reported(_NEVER_RAN)
            side.append(asyncio.create_task(self._look_on()))
            side[-1].add_done_callback(self._stop_if_failed)
            if pipes.door is not None:
                self._outward = await self._open_door(pipes.door)
            ended = await self._read_end(reader)
            await self._watchman.wait()
            self._over.set()
            # Nobody is left who could write: both outputs end with what is in the pipes.
            await asyncio.gather(*tasks)
            for each in side:
                # One that ended too soon no longer held its limit, or fed the program half of its input.
                if each.done() and not each.cancelled():
                    each.result()
            return self._reported(ended)
        finally:
            await self._clean_up(side + tasks, writer, pipes.door)

    async def _order(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Put the child into its group, make its folder its user's, and tell it what to do."""
        try:
            async with asyncio.timeout(STARTING_S):
                line = await reader.readline()
        except TimeoutError as error:
            raise SandboxFailed("its watchman does not start") from error
        if not line:
            raise SandboxFailed("its watchman ended at once")
        self._child = json.loads(line)["pid"]
        root = os.geteuid() == 0
        uid, gid = (UID_FIRST + self._child,) * 2 if root else (os.getuid(), os.getgid())
        orders = self._orders
        try:
            if self._layer.groups is not None:
                limits, count = self._limits, self._limits.processes + OWN_PROCESSES
                self._group = self._layer.groups.make(name, memory_bytes=limits.memory_bytes, processes=count)
                self._group.add(self._child)
            inputs, devices = orders.pop("inputs"), orders.pop("devices")
            if root and self._layer.sandboxed:
                for part in PARTS:
                    await asyncio.to_thread(give_to, self._folder / part, uid, gid)
            view = make_view(self._folder, uid=uid, inputs=inputs, devices=devices) if self._layer.sandboxed else None
        except OSError as error:
            raise SandboxFailed(str(error)) from error
        mounts = [[each.how, each.source, each.target] for each in view.mounts] if view else []
        orders |= {"uid": uid, "gid": gid, "mounts": mounts, "links": view.links if view else []}
        writer.write(msgspec.json.encode(orders) + b"\n")
        await writer.drain()

    async def _read_end(self, reader: asyncio.StreamReader) -> _LastWord:
        """Read what the watchman says until it says how the run ended."""
        while line := await reader.readline():
            said = json.loads(line)
            if "error" in said:
                self._refused = said["error"]
            elif "code" in said:
                return msgspec.convert(said, _LastWord)
        return _NEVER_RAN

    def _reported(self, ended: _LastWord) -> RunReport:
        """Say how it ended.

        Raises:
            SandboxFailed: the program never ran.
        """
        wall_s = time.monotonic() - self._began_at
        if self._group is not None:
            used = self._group.usage()
            self._cpu_s, self._memory_bytes = used.cpu_s, used.memory_bytes_peak
            if used.out_of_memory and self._reason is not EndReason.STOPPED:
                self._reason = EndReason.MEMORY
        self._cpu_s = max(self._cpu_s, ended.cpu_s)
        self._memory_bytes = max(self._memory_bytes, ended.rss_bytes)
        if self._reason is EndReason.EXITED:
            if self._refused or (self._layer.name == "bubblewrap" and not ended.ran):
                raise SandboxFailed(self._refused or f"bubblewrap ended with {ended.code}")
            if ended.code == _SIGXFSZ:
                self._reason = EndReason.FILE_BYTES
            elif ended.code in (_SIGXCPU, _SIGKILL) and self._cpu_s >= self._limits.cpu_s:
                self._reason = EndReason.CPU
        code = ended.code if self._reason is EndReason.EXITED else None
        return RunReport(
            reason=self._reason,
            exit_code=code,
            wall_s=wall_s,
            cpu_s=self._cpu_s,
            memory_bytes_peak=self._memory_bytes,
            output_bytes=self._output_bytes,
        )

    async def _clean_up(
        self, tasks: list[asyncio.Task[None]], writer: asyncio.StreamWriter, door: socket.socket | None
    ) -> None:
        """See that nothing of it runs any more, whichever way we came here."""
        self._kill(EndReason.STOPPED)
        try:
            await asyncio.wait_for(self._watchman.wait(), DYING_S)
        except TimeoutError:
            _log.error("a run in %s does not die; its watchman is killed", self._folder)
            self._watchman.kill()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        if door is not None:
            door.close()
        if self._outward is not None:
            await self._outward.close()
        if self._group is not None:
            await asyncio.to_thread(self._group.kill)
            await asyncio.to_thread(self._group.remove)

    def _kill(self, reason: EndReason) -> None:
        """Kill all of it; the first reason is the one that is told."""
        if self._killed or self._over.is_set():
            return
        self._killed = True
        self._reason = reason
        # The watchman kills the child, with which its namespace ends, and reaps. A stopped one would not hear.
        with contextlib.suppress(ProcessLookupError):
            self._watchman.terminate()

    def _stop_if_failed(self, task: asyncio.Task[None]) -> None:
        """End a run whose output nobody takes, or that nobody watches any more; who waits is told why."""
        if not task.cancelled() and task.exception() is not None:
            self._kill(EndReason.STOPPED)

    async def _hold_wall(self) -> None:
        await asyncio.sleep(self._limits.wall_s)
        self._kill(EndReason.WALL)

    async def _feed(self, given: bytes | AsyncIterator[bytes]) -> None:
        pipe = self._watchman.stdin
        assert pipe is not None
        # A program that reads none of it, or not all, is none of our business.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(given, bytes):
                for start in range(0, len(given), CHUNK_BYTES):
                    pipe.write(given[start : start + CHUNK_BYTES])
                    await pipe.drain()
            else:
                async for piece in given:
                    pipe.write(piece)
                    await pipe.drain()
        pipe.close()

    def _count_output(self, size: int) -> int:
        """Count what is about to be delivered, and return how much of it may be."""
        allowed = min(size, self._limits.output_bytes - self._output_bytes)
        self._output_bytes += allowed
        return allowed

    async def _take(self, pipe: asyncio.StreamReader, sink: Sink | None, count: Any) -> None:
        """Deliver what is written to *pipe*, up to the limit; past it the run is killed and the rest dropped."""
        while piece := await pipe.read(CHUNK_BYTES):
            allowed = count(len(piece))
            if allowed < len(piece):
                self._kill(EndReason.OUTPUT)
            if sink is not None and allowed > 0:
                await sink(piece[:allowed])

    async def _take_channel(self, descriptor: int, sink: Sink | None) -> None:
        left = self._limits.channel_bytes
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        file = os.fdopen(descriptor, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)

        def count(size: int) -> int:
            nonlocal left
            allowed = min(size, left)
            left -= allowed
            return allowed

        try:
            await self._take(reader, sink, count)
        finally:
            transport.close()

    async def _open_door(self, door: socket.socket) -> Outward | None:
        """Receive the socket that listens inside, and answer it."""
        loop = asyncio.get_running_loop()
        there: asyncio.Future[None] = loop.create_future()
        door.setblocking(False)
        loop.add_reader(door.fileno(), _came, there)
        try:
            async with asyncio.timeout(STARTING_S):
                await there
        finally:
            loop.remove_reader(door.fileno())
        _, descriptors, _, _ = socket.recv_fds(door, 1, 1)
        if not descriptors:
            # A wall could not be built, which the watchman is about to say.
            return None
        outward = Outward(self._layer.guard, bytes_max=self._limits.network_bytes)
        await outward.serve(socket.socket(fileno=descriptors[0]))
        return outward

    async def _look_on(self) -> None:
        """Look every `LOOK_S` at what is used, and kill what uses more than it may."""
        while True:
            await asyncio.sleep(LOOK_S)
            reason = await asyncio.to_thread(self._look)
            if reason is not None:
                self._kill(reason)
                return

    def _look(self) -> EndReason | None:
        """Return the first limit that is passed now."""
        limits, tree = self._limits, usage.read_tree(self._child)
        self._cpu_s = max(self._cpu_s, tree.cpu_s)
        if self._group is not None:
            counted = self._group.usage()
            self._cpu_s = max(self._cpu_s, counted.cpu_s)
            if counted.out_of_memory:
                return EndReason.MEMORY
        else:
            memory_bytes = tree.memory_bytes
            if memory_bytes > limits.memory_bytes and len(tree.pids) > 1:
                memory_bytes = usage.shared_once(tree.pids)
            self._memory_bytes = max(self._memory_bytes, memory_bytes)
            if memory_bytes > limits.memory_bytes:
                return EndReason.MEMORY
        if self._cpu_s > limits.cpu_s:
            return EndReason.CPU
        if tree.tasks > limits.processes + OWN_PROCESSES:
            return EndReason.PROCESSES
        return self._look_at_disk(tree.pids)

    def _look_at_disk(self, pids: tuple[int, ...]) -> EndReason | None:
        limits, disk_bytes, files = self._limits, 0, 0
        for part in PARTS:
            left_bytes, left_files = limits.disk_bytes - disk_bytes, limits.disk_files - files
            found = usage.read_folder(self._folder / part, bytes_max=left_bytes, files_max=left_files)
            disk_bytes, files = disk_bytes + found.disk_bytes, files + found.files
            if files > limits.disk_files or found.too_deep:
                return EndReason.DISK_FILES
        free = os.statvfs(self._folder)
        if disk_bytes + usage.deleted_but_open(pids, os.stat(self._folder).st_dev) > limits.disk_bytes:
            return EndReason.DISK_BYTES
        return EndReason.DISK_BYTES if free.f_bavail * free.f_frsize < FREE_BYTES_MIN else None
