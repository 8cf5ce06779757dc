"""Keeps managed containers running with Docker or Podman: pulls, creates, starts, watches and stops them.

Our containers have the label `OWNER_LABEL`, and no others are ever touched. A container that a killed worker left
running is adopted if it still matches its specification, and replaced if not. One that fails, exits or falls silent is
withdrawn, with the reason, and offered again as soon as it answers; it never affects the others.
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
"""Label with the container's owner; the value is `Containers.owner`."""

ID_LABEL = "comptoir.container"

DIGEST_LABEL = "comptoir.specification"
"""Label with the hash of what it was created from: if the hash differs, the container is replaced."""

RESTARTS_MAX = 5
"""Times that the engine itself restarts a failed container, as in Ritual's node."""

READY_S = 600.0
"""Longest wait for a container's first answer, seconds, because large models load long. After that it is offered
late."""

GRACE_S = 30.0
"""Most seconds that `Containers.start` waits for the others, once one can be served."""

READY_EVERY_S = 0.25

HEALTH_S = 2.0
"""Most seconds for a container's answer to a health check."""

WATCH_S = 5.0
"""How often every container is checked."""

TRY_AGAIN_S = 60.0
"""Delay before a container that could not be started, or has ended for good, is started again."""

SILENT_LOOKS_MAX = 2
"""Consecutive checks at which a running container refused connections, after which it is withdrawn."""

NEWS_S = 10.0
"""How often the progress of a pull is logged."""

REMOVED = "it was removed, and not by us"


class _One:
    """The current state of a managed container."""

    def __init__(self, spec: ContainerSpec, managed: Managed) -> None:
        self.spec = spec
        self.managed = managed
        self.container: str | None = None
        """The engine's id; None: it does not exist."""
        self.why: str | None = "not started yet"
        """Why it is not served; None: it is."""
        self.tried = asyncio.Event()
        """Set once the first attempt to start it is over."""
        self.silent = 0
        self.again_at = 0.0
        """When it may be started again, on the clock's monotonic scale."""


class Containers:
    """The containers of one host. `start` once, `serving` and `gone` at any time, `close` at the end.

    *owner* distinguishes this host's containers from another's on the same engine, and adopts them after a restart.
    *socket* is the engine's socket; default: `find_socket`.
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
        """Return the containers to offer now: managed ones that run, and all that are not managed."""
        return [spec for spec in self._specs if spec.id not in self.gone]

    @property
    def gone(self) -> dict[str, str]:
        """Return by id why managed containers are not served, for those that are not."""
        return {name: one.why for name, one in self._ones.items() if one.why is not None}

    async def start(self) -> list[ContainerSpec]:
        """Start all containers concurrently, and return `serving`. Does not raise for one that fails.

        A container that could not be started is in `gone`, logged, and retried every `TRY_AGAIN_S`.
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
        """Wait until every first attempt is over, or until `GRACE_S` if one can be served. Each attempt is bounded."""
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
        """Stop watching, then stop and remove the managed containers; idempotent."""
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
        """Return the engine; None if there is none: then no managed container is served, which is logged once."""
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
        """Stop and remove containers that an earlier start left and that are no longer configured."""
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
        """Start *one* and wait for its first answer; on any error it is withdrawn."""
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
        """Pull the image; if that fails, use the one that is here already."""
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
        """Adopt the existing container if it matches, else create it; then start it."""
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
        """Refuse an engine that accepts a request for GPUs and ignores it, as Podman does: it would be too slow."""
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
            # A container whose creation was interrupted is known only to the engine.
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
        """Start *one*, then check it periodically."""
        while True:
            try:
                await self._look_at(one)
            except Exception:  # One check that failed unexpectedly must not end the watch.
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
                # The engine is unreachable (Podman's exits when idle): containers may run on without it.
                await self._ask(one)

    async def _first_answer(self, api: ContainerApi, one: _One) -> None:
        """Wait until *one* answers or has ended; the engine restarts a failing one, and `look` checks the result."""
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
        """Check a running container; one that is offered and only silent is busy, and stays offered."""
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
        """Stop offering *one*; log the reason if it is new."""
        if one.why != why:
            one.why, one.silent = why, 0
            _log.warning("container %s is not offered: %s", one.spec.id, why)


def owner_of(path: Path) -> str:
    """Return the owner under which the containers of the configuration at *path* are known to the engine."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]


def create_body(managed: Managed) -> dict[str, Any]:
    """Return the body of the create request, without labels. Pure.

    The port is bound to loopback, so that only this host's worker can reach the container.
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
    """Return an engine's refusal in words that say what to do."""
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
