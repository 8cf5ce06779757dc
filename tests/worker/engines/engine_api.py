"""A container engine on a Unix socket, as Docker answers there: statuses, bodies and words, without any isolation.

`serve_engine` runs one. A container that is started really listens on the loopback port that is mapped to its 3000, and
speaks the container contract there, so that the whole path is real. What goes wrong is told beforehand
(`FakeEngine.pulls`, `FakeEngine.gpus`, `Image.does`) or happens when a test says so (`FakeEngine.crash`).
"""

import asyncio
import base64
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.tcp import stop
from tests.worker.engines.container_stand_in import Answer, ContainerStandIn, echo, serve_container

LAYERS = ("a3ed95caeb02", "9f54eef41275")


@dataclass
class Image:
    """An image at the registry."""

    does: str = "serve"
    """What its containers do: ``serve``, ``exit`` (at once, with code 3), or ``sleep`` (run and never listen)."""
    answer: Answer = echo
    version: int = 1
    credentials: tuple[str, str] | None = None
    """User and password it can be pulled with; None: anybody can."""
    pull: str = "works"
    """How its pull goes: ``works``, ``fails`` (midway, in the news), ``tells`` (so too, the credentials as well),
    ``cut`` (the connection breaks)."""

    def id(self, name: str) -> str:
        """Return its id, another one for each version."""
        return "sha256:" + hashlib.sha256(f"{name} {self.version}".encode()).hexdigest()


@dataclass
class Made:
    """A container."""

    id: str
    name: str
    body: dict[str, Any]
    image_id: str
    status: str = "created"
    exit_code: int = 0
    restarts: int = 0
    stops: list[str] = field(default_factory=list)
    """Seconds given to it at each stop."""
    inside: ContainerStandIn | None = None
    """What listens on its port while it runs."""
    ends: AsyncExitStack = field(default_factory=AsyncExitStack)

    def inspection(self, *, forgets_gpus: bool) -> dict[str, Any]:
        """Return what ``GET /containers/{id}/json`` says, as far as anybody asks."""
        host = self.body.get("HostConfig", {}) | ({"DeviceRequests": None} if forgets_gpus else {})
        state = {
            "Status": self.status,
            "Running": self.status in ("running", "restarting"),
            "Paused": False,
            "Restarting": self.status == "restarting",
            "OOMKilled": self.exit_code == 137,
            "Dead": False,
            "Pid": 0,
            "ExitCode": self.exit_code,
            "Error": "",
        }
        config = {"Image": self.body["Image"], "Env": self.body.get("Env"), "Labels": self.body.get("Labels") or {}}
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image_id,
            "State": state,
            "RestartCount": self.restarts,
            "Config": config,
            "HostConfig": host,
        }


class Refused(Exception):
    """An answer of the engine that is an error."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


class FakeEngine:
    """The engine's state; `registry` is what can be pulled, `images` what is here, by ``name:tag``."""

    def __init__(self) -> None:
        self.registry: dict[str, Image] = {}
        self.images: dict[str, Image] = {}
        self.containers: dict[str, Made] = {}
        self.gpus = True
        self.podman = False
        """Say so, and forget requests for GPUs as it does."""
        self.away = False
        """True: every connection is broken off; the containers go on."""
        self.asked: list[tuple[str, str]] = []
        self.credentials: list[dict[str, str]] = []
        self._numbers = itertools.count(1)

    def named(self, name: str) -> Made:
        """Return the container of this name."""
        return next(made for made in self.containers.values() if made.name == name)

    async def crash(self, name: str, code: int = 1) -> None:
        """Have a container end; Docker waits before it starts one again that failed, see `revive`."""
        made = self.named(name)
        await self._unlisten(made)
        made.exit_code = code
        policy = made.body["HostConfig"]["RestartPolicy"]
        again = policy["Name"] == "on-failure" and code != 0 and made.restarts < policy["MaximumRetryCount"]
        made.status = "restarting" if again else "exited"

    async def revive(self, name: str) -> None:
        """Start a container again that crashed, as its restart policy has it."""
        made = self.named(name)
        assert made.status == "restarting"
        made.restarts += 1
        await self._listen(made)

    def app(self) -> web.Application:
        """Return the API."""
        app = web.Application(middlewares=[self._errors])
        app.add_routes(
            [
                web.get("/version", self._version),
                web.post("/images/create", self._pull),
                web.get("/images/{name:.+}/json", self._image),
                web.get("/containers/json", self._list),
                web.post("/containers/create", self._create),
                web.get("/containers/{id}/json", self._inspect),
                web.post("/containers/{id}/start", self._start),
                web.post("/containers/{id}/stop", self._stop),
                web.delete("/containers/{id}", self._delete),
            ]
        )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if self.away:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        try:
            response: web.StreamResponse = await handler(request)
        except Refused as refused:
            return web.json_response({"message": refused.message}, status=refused.status)
        return response

    async def _version(self, request: web.Request) -> web.Response:
        name = "Podman Engine" if self.podman else "Engine"
        return web.json_response({"Components": [{"Name": name, "Version": "1"}], "ApiVersion": "1.47"})

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        name, tag = request.query["fromImage"], request.query["tag"]
        full = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"
        image = self.registry.get(full)
        given = request.headers.get("X-Registry-Auth")
        credentials = json.loads(base64.urlsafe_b64decode(given)) if given else {}
        self.credentials.append(credentials)
        wanted = image.credentials if image else None
        if image is None or (wanted and wanted != (credentials.get("username"), credentials.get("password"))):
            raise Refused(
                404, f"pull access denied for {name}, repository does not exist or may require 'docker login'"
            )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        news = self._news(name, tag, image)
        if image.pull == "tells":
            message = f"login {':'.join(credentials.values())} failed"
            news.append({"errorDetail": {"message": message}, "error": message})
        for line in news:
            await response.write(json.dumps(line).encode() + b"\r\n")
        if image.pull == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif image.pull == "works":
            self.images[full] = Image(**{**vars(image)})
        return response

    def _news(self, name: str, tag: str, image: Image) -> list[dict[str, Any]]:
        news: list[dict[str, Any]] = [{"status": f"Pulling from {name}", "id": tag}]
        for layer in LAYERS:
            news.append({"status": "Pulling fs layer", "progressDetail": {}, "id": layer})
            size = {"current": 3 << 20, "total": 4 << 20}
            news.append({"status": "Downloading", "progressDetail": size, "progress": "[==> ]  3MB/4MB", "id": layer})
            if image.pull != "works":
                break
            news.append({"status": "Pull complete", "progressDetail": {}, "id": layer})
        if image.pull == "fails":
            message = "unauthorized: authentication required"
            news.append({"errorDetail": {"message": message}, "error": message})
        elif image.pull == "works":
            news.append({"status": f"Digest: {image.id(name)}"})
            news.append({"status": f"Status: Downloaded newer image for {name}:{tag}"})
        return news

    async def _image(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.images:
            raise Refused(404, f"No such image: {name}")
        return web.json_response({"Id": self.images[name].id(name), "RepoTags": [name]})

    async def _list(self, request: web.Request) -> web.Response:
        wanted = json.loads(request.query.get("filters", "{}")).get("label", [])
        found = []
        for made in self.containers.values():
            labels = made.body.get("Labels") or {}
            every = request.query.get("all") == "true" or made.status == "running"
            if every and all(
                f"{key}={labels.get(key)}" == label for label in wanted for key in [label.partition("=")[0]]
            ):
                found.append({"Id": made.id, "Names": [f"/{made.name}"], "State": made.status, "Labels": labels})
        return web.json_response(found)

    async def _create(self, request: web.Request) -> web.Response:
        name, body = request.query["name"], await request.json()
        image = self.images.get(body["Image"])
        if image is None:
            raise Refused(404, f"No such image: {body['Image']}")
        holder = next((made for made in self.containers.values() if made.name == name), None)
        if holder is not None:
            raise Refused(
                409,
                f'Conflict. The container name "/{name}" is already in use by container "{holder.id}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
            )
        made = Made(f"{next(self._numbers):064x}", name, body, image.id(body["Image"]))
        self.containers[made.id] = made
        return web.json_response({"Id": made.id, "Warnings": []}, status=201)

    def _found(self, request: web.Request) -> Made:
        asked = request.match_info["id"]
        if asked not in self.containers:
            raise Refused(404, f"No such container: {asked}")
        return self.containers[asked]

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(request).inspection(forgets_gpus=self.podman))

    async def _start(self, request: web.Request) -> web.Response:
        made = self._found(request)
        if made.status == "running":
            return web.Response(status=304)
        if made.body["HostConfig"].get("DeviceRequests") and not self.gpus:
            raise Refused(500, 'could not select device driver "" with capabilities: [[gpu]]')
        await self._listen(made)
        return web.Response(status=204)

    async def _listen(self, made: Made) -> None:
        image = self.images[made.body["Image"]]
        binding = made.body["HostConfig"]["PortBindings"]["3000/tcp"][0]
        if image.does == "serve":
            try:
                made.inside = await made.ends.enter_async_context(
                    serve_container(image.answer, port=int(binding["HostPort"]))
                )
            except OSError as error:
                raise Refused(
                    500,
                    f"driver failed programming external connectivity on endpoint {made.name}: Bind for "
                    f"{binding['HostIp']}:{binding['HostPort']} failed: port is already allocated",
                ) from error
        made.status, made.exit_code = "running", 0
        if image.does == "exit":
            made.status, made.exit_code, made.restarts = "exited", 3, 5

    async def _unlisten(self, made: Made) -> None:
        made.inside = None
        await made.ends.aclose()

    async def _stop(self, request: web.Request) -> web.Response:
        made = self._found(request)
        made.stops.append(request.query.get("t", ""))
        if made.status not in ("running", "restarting"):
            return web.Response(status=304)
        await self._unlisten(made)
        made.status = "exited"
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        made = self._found(request)
        if made.status == "running" and request.query.get("force") != "true":
            raise Refused(
                409,
                f'cannot remove container "/{made.name}": container is running: stop it before removing or force remove',
            )
        await self._unlisten(made)
        del self.containers[made.id]
        return web.Response(status=204)

    async def end(self) -> None:
        """End all containers."""
        await asyncio.gather(*(self._unlisten(made) for made in self.containers.values()))


@asynccontextmanager
async def serve_engine(socket: Path) -> AsyncIterator[FakeEngine]:
    """Run an engine on *socket* until the block ends."""
    engine = FakeEngine()
    runner = web.AppRunner(engine.app(), shutdown_timeout=1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield engine
    finally:
        await stop(runner)
        await engine.end()
