"""A small client of the Engine API of Docker and Podman on a Unix socket: only what managed containers need.

Every call is bounded in time. Paths have no API version: the engine answers with its newest, and everything used here
exists since 1.40. Errors are `ContainerApiError` with the engine's message; none contains registry credentials.
"""

import base64
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

CALL_S = 30.0
"""Most seconds for an answer of the engine; starting a container takes 1 to 3."""

PULL_SILENCE_S = 300.0
"""Most seconds without progress of a pull; a layer that is being unpacked reports none."""

PULL_S = 4 * 3600.0
"""Most seconds for a pull: 50 GB at 30 Mbit/s."""

STOP_S = 60
"""Seconds that a container has to stop by itself before it is killed."""

ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Longest answer that is read; an inspection has 10 KB."""

NOT_FOUND = 404

Read = TypeVar("Read")

PLACES = ("/var/run/docker.sock", "{runtime}/podman/podman.sock", "/run/podman/podman.sock")
"""Where an engine listens, in the order they are tried; ``{runtime}`` is XDG_RUNTIME_DIR."""


class ContainerApiError(Exception):
    """The engine refused, or did not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        """HTTP status; 0: no answer."""


def find_socket(environment: Mapping[str, str] = os.environ) -> str:
    """Return the path of the engine's socket.

    Raises:
        ContainerApiError: there is none, or DOCKER_HOST is not a Unix socket.
    """
    chosen = environment.get("DOCKER_HOST", "")
    if chosen:
        if not chosen.startswith("unix://"):
            scheme = chosen.partition(":")[0]
            raise ContainerApiError(
                f"DOCKER_HOST is {scheme}://…: only unix:// is used, as containers are reached on this machine's loopback"
            )
        return chosen.removeprefix("unix://")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    places = [place.format(runtime=runtime) for place in PLACES if runtime or "{runtime}" not in place]
    for place in places:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(place).stat().st_mode):
                return place
    raise ContainerApiError(
        f"neither Docker nor Podman is found here (no socket at {', '.join(places)}; or set DOCKER_HOST)"
    )


class ContainerState(msgspec.Struct, frozen=True):
    """Whether a container runs, and how it ended if not."""

    running: bool = msgspec.field(name="Running", default=False)
    restarting: bool = msgspec.field(name="Restarting", default=False)
    """Whether it failed and the engine is restarting it."""
    killed_for_memory: bool = msgspec.field(name="OOMKilled", default=False)
    exit_code: int = msgspec.field(name="ExitCode", default=0)


class _Config(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class _HostConfig(msgspec.Struct, frozen=True):
    device_requests: list[Any] | None = msgspec.field(name="DeviceRequests", default=None)


class Inspection(msgspec.Struct, frozen=True):
    """The engine's information about a container."""

    id: str = msgspec.field(name="Id")
    image: str = msgspec.field(name="Image")
    """Id of its image."""
    state: ContainerState = msgspec.field(name="State")
    config: _Config = msgspec.field(name="Config")
    host: _HostConfig = msgspec.field(name="HostConfig")

    @property
    def labels(self) -> dict[str, str]:
        """Return its labels."""
        return self.config.labels or {}


class Listed(msgspec.Struct, frozen=True):
    """A container in a list."""

    id: str = msgspec.field(name="Id")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class _Identified(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="Id")


class _VersionPart(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name", default="")


class _Version(msgspec.Struct, frozen=True):
    parts: list[_VersionPart] | None = msgspec.field(name="Components", default=None)


class PullProgress(msgspec.Struct, frozen=True):
    """Progress of a pull."""

    layers: int = 0
    layers_done: int = 0
    mib: int = 0
    """Downloaded so far."""


class ContainerApi:
    """One engine. `open` first, `close` at the end; all methods raise ContainerApiError."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.product = "the container engine"
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Connect, and find out which product it is."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.socket, limit=0), timeout=timeout)
        try:
            version = await self._read("GET", "/version", _Version)
        except BaseException:
            await self.close()
            raise
        self.product = "Podman" if any("Podman" in part.name for part in version.parts or ()) else "Docker"

    async def close(self) -> None:
        """Close the connection; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def image_id(self, image: str) -> str | None:
        """Return the id of *image* on this machine; None if it is not here."""
        try:
            return (await self._read("GET", f"/images/{quote(image, safe='/:@')}/json", _Identified)).id
        except ContainerApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def pull(
        self, image: str, *, user: str = "", password: str = "", news: Callable[[PullProgress], None]
    ) -> None:
        """Pull *image*, reporting progress to *news*."""
        name, tag = split_image(image)
        headers = {}
        if user:
            credentials = json.dumps({"username": user, "password": password}).encode()
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(credentials).decode()
        timeout = aiohttp.ClientTimeout(total=PULL_S, sock_read=PULL_SILENCE_S)
        parameters = {"fromImage": name, "tag": tag}
        layers: dict[str, tuple[bool, int]] = {}
        try:
            async with self._answer(
                "POST", "/images/create", params=parameters, headers=headers, timeout=timeout
            ) as answer:
                async for line in answer.content:
                    if line.strip():
                        _note(msgspec.json.decode(line, type=dict[str, Any]), layers)
                        news(_progress(layers))
        except (msgspec.DecodeError, ValueError) as error:
            raise ContainerApiError(f"the engine's news of a pull are not understood: {error}") from error
        except ContainerApiError as error:
            if not password:
                raise
            raise ContainerApiError(error.message.replace(password, "***"), error.status) from error

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create (not start) a container; returns its id."""
        return (await self._read("POST", "/containers/create", _Identified, params={"name": name}, json=body)).id

    async def start(self, container: str) -> None:
        """Start it, unless it runs."""
        await self._call("POST", f"/containers/{container}/start")

    async def stop(self, container: str) -> None:
        """Stop it, killing it after `STOP_S`; one that is stopped or gone is fine."""
        timeout = aiohttp.ClientTimeout(total=STOP_S + CALL_S)
        await self._unless_gone("POST", f"/containers/{container}/stop", params={"t": STOP_S}, timeout=timeout)

    async def remove(self, container: str) -> None:
        """Remove it and its anonymous volumes, even if it runs; one that is gone is fine."""
        await self._unless_gone("DELETE", f"/containers/{container}", params={"force": "true", "v": "true"})

    async def inspect(self, container: str) -> Inspection | None:
        """Return the engine's information about it; None if it is gone."""
        try:
            return await self._read("GET", f"/containers/{container}/json", Inspection)
        except ContainerApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def labelled(self, label: str) -> list[Listed]:
        """Return all containers, including stopped ones, with *label* (``key=value``)."""
        filters = json.dumps({"label": [label]})
        return await self._read("GET", "/containers/json", list[Listed], params={"all": "true", "filters": filters})

    async def _unless_gone(self, method: str, path: str, **options: Any) -> None:
        try:
            await self._call(method, path, **options)
        except ContainerApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def _call(self, method: str, path: str, **options: Any) -> None:
        async with self._answer(method, path, **options):
            pass

    async def _read(self, method: str, path: str, kind: type[Read], **options: Any) -> Read:
        async with self._answer(method, path, **options) as answer:
            # `_answer` turns decoding errors into our own.
            return msgspec.json.decode(await _whole(answer), type=kind)

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise ContainerApiError("the connection to the container engine is closed")
        try:
            async with self._session.request(method, f"http://engine{path}", **options) as answer:
                if answer.status >= 400:
                    raise ContainerApiError(_words(await _whole(answer)), answer.status)
                yield answer
        except TimeoutError as error:
            raise ContainerApiError(f"{self.product} did not answer in time ({method} {path})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ContainerApiError(f"{self.product} at {self.socket} can't be asked: {error}") from error
        except msgspec.DecodeError as error:
            raise ContainerApiError(f"{self.product}'s answer is not understood ({method} {path})") from error


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ContainerApiError(f"the engine's answer is longer than {ANSWER_BYTES_MAX:,} bytes")
    return bytes(body)


def split_image(image: str) -> tuple[str, str]:
    """Split ``name[:tag]`` or ``name@digest``; without a tag it is ``latest``, otherwise all tags would be pulled."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, colon, tag = image.rpartition(":")
    # A colon before a slash belongs to a registry's port.
    return (head, tag) if colon and "/" not in tag else (image, "latest")


def _note(news: Mapping[str, Any], layers: dict[str, tuple[bool, int]]) -> None:
    """Fold one line of a pull into *layers*: whether each is complete, and its bytes so far."""
    if news.get("error") or news.get("errorDetail"):
        detail = news.get("errorDetail")
        message = detail.get("message") if isinstance(detail, Mapping) else None
        raise ContainerApiError(str(message or news.get("error")))
    layer, status, detail = news.get("id"), str(news.get("status", "")), news.get("progressDetail")
    if not isinstance(layer, str) or status.startswith("Pulling from"):
        return
    current = detail.get("current") if isinstance(detail, Mapping) and status == "Downloading" else None
    done = status in ("Pull complete", "Already exists")
    layers[layer] = (done, current if isinstance(current, int) else layers.get(layer, (False, 0))[1])


def _progress(layers: Mapping[str, tuple[bool, int]]) -> PullProgress:
    done = sum(complete for complete, _ in layers.values())
    return PullProgress(len(layers), done, sum(size for _, size in layers.values()) // (1024 * 1024))


def _words(body: bytes) -> str:
    """Return the message of an error body; Podman adds a cause, which its message already ends with."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any]).get("message") or "no reason was given")
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace").strip() or "no reason was given"


async def answers(session: aiohttp.ClientSession, url: str, *, within_s: float) -> bool | None:
    """Tell whether something answers HTTP at *url*; None: it accepts connections but is silent, so busy."""
    try:
        timeout = aiohttp.ClientTimeout(total=within_s)
        async with session.get(url, timeout=timeout, allow_redirects=False):
            return True
    except TimeoutError:
        return None
    except (aiohttp.ClientError, OSError):
        return False
