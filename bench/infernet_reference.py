"""A node of our own making that does what Ritual's does and nothing more: Quart on hypercorn, jobs in a dict, nothing
durable.

Like the real one it calls the containers itself. It has no limits, no accounts, no rate limiter and no logging, and
keeps its connections to containers, so it is a favourable reference.
"""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response, jsonify, request


class ReferenceNode:
    """Runs chains of the containers that are all at *url*."""

    def __init__(self, url: str, *, containers: int) -> None:
        self._url = url + "/service_output"
        self._names = [f"c{number}" for number in range(containers)]
        self._jobs: dict[str, dict[str, Any]] = {}
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def app(self) -> Quart:
        """Return the application; call it where a loop runs."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=512))
        app = Quart("reference")
        app.add_url_rule("/info", view_func=self.info)
        app.add_url_rule("/api/jobs", "create", self.create, methods=["POST"])
        app.add_url_rule("/api/jobs/batch", view_func=self.batch, methods=["POST"])
        app.add_url_rule("/api/jobs/stream", view_func=self.stream, methods=["POST"])
        app.add_url_rule("/api/jobs", "look", self.look, methods=["GET"])
        return app

    async def info(self) -> Response:
        """Say what is there and how much of it runs."""
        containers = [{"id": name, "description": "", "external": True, "image": ""} for name in self._names]
        return jsonify(
            {"version": "1.4.0", "containers": containers, "pending": {"offchain": self._running, "onchain": 0}}
        )

    async def create(self) -> Response:
        """Begin a job."""
        return jsonify({"id": self._begin(await request.get_json())})

    async def batch(self) -> Response:
        """Begin several."""
        return jsonify([{"id": self._begin(item)} for item in await request.get_json()])

    async def look(self) -> Response:
        """Show jobs."""
        return jsonify([self._jobs[one] for one in request.args.getlist("id") if one in self._jobs])

    async def stream(self) -> Response:
        """Give the id, then the bytes of the container."""
        body = await request.get_json()

        async def pieces() -> AsyncIterator[bytes]:
            yield f"{uuid.uuid4()}\n".encode()
            asked = {"source": 1, "destination": 2, "data": body["data"]}
            async with self._session.post(self._url, json=asked) as answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return Response(pieces())

    def _begin(self, body: dict[str, Any]) -> str:
        if not all(name in self._names for name in body["containers"]):
            raise ValueError("no such container")
        job_id = str(uuid.uuid4())
        self._jobs[job_id] = {"id": job_id, "status": "running", "result": None}
        self._running += 1
        task = asyncio.get_running_loop().create_task(self._run(job_id, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job_id

    async def _run(self, job_id: str, body: dict[str, Any]) -> None:
        data = body["data"]
        for _ in body["containers"]:
            asked = {"source": 1, "destination": 1, "data": data, "requires_proof": False}
            async with self._session.post(self._url, json=asked) as answer:
                data = await answer.json()
        result = {"container": body["containers"][-1], "output": data}
        self._jobs[job_id] = {"id": job_id, "status": "success", "result": result}
        self._running -= 1


async def serve_reference(url: str, containers: str) -> None:
    """Serve until killed; the first line says where."""
    config = Config()
    config.keep_alive_max_requests = 10**9
    config.errorlog = None
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config.bind = [f"fd://{listening.fileno()}"]
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await serve(ReferenceNode(url, containers=int(containers)).app(), config)  # type: ignore[arg-type]
