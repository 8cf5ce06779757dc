"""Keeps managed containers running with Docker or Podman: pulled, created, started, watched, stopped.

What is ours carries the label `OWNER_LABEL`, and nothing else is ever touched. A container that a killed worker left behind is
adopted as it runs, if it still is what its specification says, and replaced if not. One that fails, exits or falls silent is
withdrawn, with the reason, and is back as soon as it answers; it never stops the others.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from comptoir.kit.clock import Clock
from comptoir.worker.engines.container_api import (
    ContainerApi,
    ContainerApiError,
    ContainerState,
    PullProgress,
    answers,
    find_socket,
)
from comptoir.worker.engines.container_spec import ContainerSpec, Managed

_log = logging.getLogger(__name__)

INNER_PORT = "3000/tcp"
"""Port that a container listens on inside, by the contract."""

OWNER_LABEL = "comptoir.owner"
"""Whose the container is; the value is `Containers.owner`."""

ID_LABEL = "comptoir.container"

DIGEST_LABEL = "comptoir.specification"
"""Hash of what it was created from: another one means that it is replaced."""

RESTARTS_MAX = 5
"""Times that the engine itself starts a container again that failed, as Ritual's node has it."""

READY_S = 600.0
"""Longest wait for a container's first answer, seconds, as large models load that long. Later, it is offered late."""

GRACE_S = 30.0
"""Most seconds that `Containers.start` waits for all, once one of them can be served."""

READY_EVERY_S = 0.25

HEALTH_S = 2.0
"""Most seconds for an answer of a container that is asked how it is."""

WATCH_S = 5.0
"""How often every container is looked at."""

TRY_AGAIN_S = 60.0
"""After how long one that could not be started, or has ended for good, is started again."""

SILENT_LOOKS_MAX = 2
"""Consecutive looks at which a running container refused connections after which it is withdrawn."""

NEWS_S = 10.0
"""How often the progress of a pull is said."""

REMOVED = "it was removed, and not by us"


class _One:
    """A managed container as it is now."""

    def __init__(self, spec: ContainerSpec, managed: Managed) -> None:
        self.spec = spec
        self.managed = managed
        self.container: str | None = None
        """The engine's id; None: not there."""
        self.why: str | None = "not started yet"
        """Why it is not served; None: it is."""
        self.tried = asyncio.Event()
        """Set once the first try to start it is over."""
        self.silent = 0
        self.again_at = 0.0
        """When it may be started again, on the clock's monotonic scale."""


class Containers:
    """The containers of one host. `start` once, `serving` and `gone` at any time, `close` at the end.

    *owner* tells this host's containers from another's on the same engine; the same one adopts them after a restart.
    *socket* is where the engine listens; it is looked for (`find_socket`) when not given.
    """

    def __init__(
        self,
        specs: Sequence[ContainerSpec],
        *,
        owner: str,
        socket: str | None = None,
        clock: Clock | None = None,
        ready_s: float = READY_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self.owner = owner
        self._specs = tuple(specs)
        self._ones = {spec.id: _One(spec, spec.managed) for spec in specs if spec.managed is not None}
        self._socket = socket
        self._clock = clock or Clock()
        self._ready_s = ready_s
        self._grace_s = grace_s
        self._api: ContainerApi | None = None
        self._http: aiohttp.ClientSession | None = None
        self._connecting = asyncio.Lock()
        self._watches: list[asyncio.Task[None]] = []

    @property
    def serving(self) -> list[ContainerSpec]:
        """Return the containers to offer now: those that run, and those that somebody else keeps running."""
        return [spec for spec in self._specs if spec.id not in self.gone]

    @property
    def gone(self) -> dict[str, str]:
        """Return why each managed container that is not served isn't, by its id."""
        return {name: one.why for name, one in self._ones.items() if one.why is not None}

    async def start(self) -> list[ContainerSpec]:
        """Start everything that is due, all at once, and return `serving`. Never raises for one that fails.

        What could not be started is in `gone`, said in the log, and tried again every `TRY_AGAIN_S`.
        """
        if not self._ones:
            return self.serving
        try:
            self._http = aiohttp.ClientSession()
            await self._connected()
            self._watches = [asyncio.create_task(self._keep(one)) for one in self._ones.values()]
            await self._first_tries()
        except BaseException:
            # A worker that is stopped while it starts leaves no container behind.
            await self.close()
            raise
        return self.serving

    async def _first_tries(self) -> None:
        """Wait until every first try is over, or `GRACE_S` is and one can be served. Each try has its own bound."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + self._grace_s
        waiting = {asyncio.create_task(one.tried.wait()) for one in self._ones.values()}
        try:
            while waiting and not (self.serving and clock() >= until_s):
                left_s = max(0.0, until_s - clock()) if self.serving else None
                _, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def look(self) -> None:
        """Check every managed container once: withdraw what ended, restore what answers, restart what is due."""
        await asyncio.gather(*(self._look_at(one) for one in self._ones.values()))

    async def close(self) -> None:
        """End the watch, stop and remove the managed containers; idempotent."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.cancel()
        if watches:
            await asyncio.wait(watches)
        api, self._api = self._api, None
        try:
            if api is not None:
                await self._take_down(api)
        finally:
            if api is not None:
                await api.close()
            http, self._http = self._http, None
            if http is not None:
                await http.close()

    # -- the engine ---------------------------------------------------------------------------------------------------

    async def _connected(self) -> ContainerApi | None:
        """Return the engine; None without one, and then no managed container is served, which is said once."""
        async with self._connecting:
            if self._api is not None:
                return self._api
            try:
                api = ContainerApi(self._socket or find_socket())
                await api.open()
            except ContainerApiError as error:
                for one in self._ones.values():
                    self._withdraw(one, error.message)
                return None
            self._api = api
            await self._remove_strays(api)
            return api

    async def _ours(self, api: ContainerApi) -> dict[str, str]:
        """Return the names of all our containers at the engine, by the engine's ids."""
        left = await api.labelled(f"{OWNER_LABEL}={self.owner}")
        return {found.id: (found.labels or {}).get(ID_LABEL, "") for found in left}

    async def _remove_strays(self, api: ContainerApi) -> None:
        """Stop and remove what an earlier start of ours left and nobody wants any more."""
        try:
            left = await self._ours(api)
        except ContainerApiError as error:
            _log.warning("what an earlier start left can't be listed: %s", error.message)
            return
        for container, name in left.items():
            if name not in self._ones:
                _log.info("container %s is no longer wanted and is removed", name)
                await self._end(api, container, name)

    async def _bring_up(self, api: ContainerApi, one: _One) -> None:
        """Make *one* run and wait for its first answer; what goes wrong withdraws it."""
        one.again_at = self._clock.monotonic_s() + TRY_AGAIN_S
        try:
            await self._image(api, one)
            await self._container(api, one)
        except ContainerApiError as error:
            self._withdraw(one, _explained(error, one.managed))
            return
        try:
            async with asyncio.timeout(self._ready_s):
                await self._first_answer(api, one)
        except TimeoutError:
            self._withdraw(one, f"it did not answer within {self._ready_s:.0f} s; it is offered as soon as it does")

    async def _image(self, api: ContainerApi, one: _One) -> None:
        """Fetch the image; where that fails, one that is here already will do."""
        image, said_at = one.managed.image, self._clock.monotonic_s()

        def news(progress: PullProgress) -> None:
            nonlocal said_at
            if self._clock.monotonic_s() - said_at >= NEWS_S:
                said_at = self._clock.monotonic_s()
                done, layers, mib = progress.layers_done, progress.layers, progress.mib
                _log.info("container %s: pulling %s: %d of %d layers, %d MiB", one.spec.id, image, done, layers, mib)

        _log.info("container %s: pulling %s", one.spec.id, image)
        try:
            await api.pull(image, user=one.managed.registry_user, password=one.managed.registry_password, news=news)
        except ContainerApiError as error:
            if await api.image_id(image) is None:
                raise ContainerApiError(f"image {image} can't be pulled: {error.message}", error.status) from error
            _log.warning(
                "container %s: %s can't be pulled, the one here is used: %s", one.spec.id, image, error.message
            )

    async def _container(self, api: ContainerApi, one: _One) -> None:
        """Adopt the container that is there if it is what it should be, else make it; then start it."""
        image, body = await api.image_id(one.managed.image), self._body(one)
        left = next((container for container, name in (await self._ours(api)).items() if name == one.spec.id), None)
        found = await api.inspect(left) if left else None
        if found is not None:
            if found.labels.get(DIGEST_LABEL) == body["Labels"][DIGEST_LABEL] and found.image == image:
                _log.info("container %s: the one from an earlier start is kept", one.spec.id)
            else:
                await api.stop(found.id)
                await api.remove(found.id)
                found = None
        one.container = found.id if found else await api.create(f"comptoir-{one.spec.id}", body)
        try:
            await self._has_gpus(api, one)
            await api.start(one.container)
        except ContainerApiError:
            useless, one.container = one.container, None
            with contextlib.suppress(ContainerApiError):
                await api.remove(useless)
            raise

    async def _has_gpus(self, api: ContainerApi, one: _One) -> None:
        """Refuse an engine that accepts the request for GPUs and ignores it, as Podman does: slow is useless."""
        made = await api.inspect(one.container or "") if one.managed.gpu else None
        if made is not None and not made.host.device_requests:
            raise ContainerApiError(f"{api.product} gives no GPU to a container that is made this way; use Docker")

    def _body(self, one: _One) -> dict[str, Any]:
        body = create_body(one.managed)
        digest = hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()
        return body | {"Labels": {OWNER_LABEL: self.owner, ID_LABEL: one.spec.id, DIGEST_LABEL: digest}}

    async def _take_down(self, api: ContainerApi) -> None:
        ours = {one.container: name for name, one in self._ones.items() if one.container is not None}
        try:
            # One whose making was interrupted is known only there.
            ours |= await self._ours(api)
        except ContainerApiError as error:
            _log.warning("the containers can't be listed: %s", error.message)
        for one in self._ones.values():
            one.container, one.why = None, "stopped"
        await asyncio.gather(*(self._end(api, container, name) for container, name in ours.items()))

    async def _end(self, api: ContainerApi, container: str, name: str) -> None:
        try:
            await api.stop(container)
            await api.remove(container)
        except ContainerApiError as error:
            _log.warning("container %s can't be stopped: %s", name, error.message)

    # -- the watch ----------------------------------------------------------------------------------------------------

    async def _keep(self, one: _One) -> None:
        """Start *one*, then look at it again and again."""
        while True:
            try:
                await self._look_at(one)
            except Exception:  # One look that went wrong in a way nobody thought of must not end the watch.
                _log.exception("looking at container %s failed", one.spec.id)
            one.tried.set()
            await asyncio.sleep(WATCH_S)

    async def _look_at(self, one: _One) -> None:
        api = await self._connected()
        if api is None:
            return
        due = self._clock.monotonic_s() >= one.again_at
        try:
            if not one.tried.is_set():
                await self._bring_up(api, one)
                return
            found = await api.inspect(one.container) if one.container else None
            if found is None and one.container is not None:
                one.container = None
                self._withdraw(one, REMOVED)
            if found is None and due:
                await self._bring_up(api, one)
            elif found is not None and _runs(found.state):
                await self._ask(one)
            elif found is not None:
                self._withdraw(one, _ended(found.state))
                if due and not found.state.restarting:
                    one.again_at = self._clock.monotonic_s() + TRY_AGAIN_S
                    await api.start(found.id)
        except ContainerApiError as error:
            if error.status or one.why is not None:
                self._withdraw(one, _explained(error, one.managed))
            else:
                # The engine is away (Podman's ends when nobody asks it): containers may go on without it.
                await self._ask(one)

    async def _first_answer(self, api: ContainerApi, one: _One) -> None:
        """Wait until *one* answers or has ended; the engine restarts a failing one, and `look` sees how that goes."""
        while not await self._ask(one):
            try:
                found = await api.inspect(one.container or "")
            except ContainerApiError as error:
                self._withdraw(one, error.message)
                return
            if found is None or not found.state.running:
                self._withdraw(one, _ended(found.state) if found else REMOVED)
                return
            await asyncio.sleep(READY_EVERY_S)

    async def _ask(self, one: _One) -> bool:
        """Ask a running container how it is; one that is served and only silent is busy, and stays."""
        assert self._http is not None, "asked before start or after close"
        well = await answers(self._http, one.spec.url + "/", within_s=HEALTH_S)
        if well:
            one.silent = 0
            if one.why is not None:
                one.why = None
                _log.info("container %s answers and is offered", one.spec.id)
            return True
        if well is False and one.why is None:
            one.silent += 1
            if one.silent >= SILENT_LOOKS_MAX:
                self._withdraw(one, "it runs, and nothing answers on its port")
        return False

    def _withdraw(self, one: _One, why: str) -> None:
        """Serve *one* no more; say why, if that is news."""
        if one.why != why:
            one.why, one.silent = why, 0
            _log.warning("container %s is not offered: %s", one.spec.id, why)


def owner_of(path: Path) -> str:
    """Return the owner under which the containers of the configuration at *path* are known to the engine."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]


def create_body(managed: Managed) -> dict[str, Any]:
    """Return what the engine is asked to create, without labels. Pure.

    The port is bound to loopback: nobody but this host's worker can reach the container.
    """
    body: dict[str, Any] = {
        "Image": managed.image,
        "Env": [f"{name}={value}" for name, value in managed.env.items()],
        "ExposedPorts": {INNER_PORT: {}},
        "HostConfig": {
            "PortBindings": {INNER_PORT: [{"HostIp": "127.0.0.1", "HostPort": str(managed.port)}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": RESTARTS_MAX},
            "Binds": [volume for volume in managed.volumes if ":" in volume],
        },
    }
    if managed.command:
        body["Cmd"] = shlex.split(managed.command)
    unnamed = [volume for volume in managed.volumes if ":" not in volume]
    if unnamed:
        body["Volumes"] = {volume: {} for volume in unnamed}
    if managed.gpu:
        body["HostConfig"]["DeviceRequests"] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    return body


def _explained(error: ContainerApiError, managed: Managed) -> str:
    """Say an engine's refusal so that it is known what to do."""
    message = error.message
    lowered = message.lower()
    if "already allocated" in lowered or "address already in use" in lowered:
        return f"port {managed.port} of this machine is in use; choose another ({message})"
    if "device driver" in lowered and "gpu" in lowered:
        return f"this machine's engine has no GPU support; install the NVIDIA container toolkit ({message})"
    if error.status == 409 or "already in use" in lowered:
        return f"a container of this name is there and not ours; remove or rename it ({message})"
    return message


def _runs(state: ContainerState) -> bool:
    return state.running and not state.restarting


def _ended(state: ContainerState) -> str:
    if state.restarting:
        return f"it failed (exit code {state.exit_code}) and is being started again"
    if state.killed_for_memory:
        return "it was killed, as it used more memory than it may"
    return f"it has ended (exit code {state.exit_code}); its own log says why"
