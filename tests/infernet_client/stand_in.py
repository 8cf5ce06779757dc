"""A small Infernet node, to prove the driver of the official client: answers as the real one was seen to, and remembers
nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from comptoir.chain import DelegatedRequest, parse_delegated

CHAIN_ID = 31337
FLUSH_S = 0.05
"""How much later than the id the first data of a stream comes: the client takes whatever its first read gives for the
id."""

EXTERNAL = {"echo": True, "reverse": True, "inner": False, "broken": True}
"""Containers, and whether they may come first."""

RESOURCES = {"echo": {"service_id": "echo", "hardware_capabilities": [], "compute_capability": []}}
PIECES = (b"one ", b"two ", b"three")


@dataclass
class StandIn:
    """One running node."""

    url: str = ""
    glued: bool = False
    """Whether streams send their id and their first data as one."""
    delegated: list[DelegatedRequest] = field(default_factory=list)
    recorded: list[Any] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)
    """How often each job was asked for: the first time it is still running."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def refusal(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Return the rejection of a job, in the node's order."""
        containers = job.get("containers", [])
        if not containers:
            return {"error": "No containers specified", "params": {}}
        for one in containers:
            if one not in EXTERNAL:
                return {"error": "Container not supported", "params": {"container": one}}
        if not EXTERNAL[containers[0]]:
            return {"error": "First container must be external", "params": {"first_container": containers[0]}}
        return None

    def take(self, job: dict[str, Any]) -> dict[str, Any]:
        """Make a job; return its id."""
        made = str(uuid.uuid4())
        self.jobs[made] = job
        return {"id": made}

    def result(self, made: str, *, intermediate: bool) -> dict[str, Any]:
        """Return a job's result as the reference has it."""
        containers, data = self.jobs[made]["containers"], self.jobs[made]["data"]
        self.looked[made] = self.looked.get(made, 0) + 1
        if self.looked[made] == 1 and data.get("slow"):
            return {"id": made, "status": "running", "result": None}
        outputs = [{"container": one, "output": {one: data}} for one in containers if one != "broken"]
        failed = "broken" in containers
        last: dict[str, Any] = {"container": "broken", "error": "boom"} if failed else outputs.pop()
        found: dict[str, Any] = {"id": made, "status": "failed" if failed else "success", "result": last}
        return found | ({"intermediate_results": outputs} if intermediate else {})

    # -- endpoints ---------------------------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def info(self, request: web.Request) -> web.Response:
        containers = [{"id": one, "description": "", "external": EXTERNAL[one], "image": ""} for one in EXTERNAL]
        pending = {"offchain": 0, "onchain": 0}
        chain = {"enabled": False, "address": ""}
        return web.json_response({"version": "1.4.0", "containers": containers, "pending": pending, "chain": chain})

    async def resources(self, request: web.Request) -> web.Response:
        model = request.query.get("model_id")
        return web.json_response(RESOURCES if model is None else {"echo": {"supported": model == "hf/a/b"}})

    async def post(self, request: web.Request) -> web.Response:
        body = await request.read()
        job = await request.json()
        if "subscription" in job:
            self.delegated.append(parse_delegated(body))
            return web.json_response({})
        refusal = self.refusal(job)
        return web.json_response(refusal, status=405) if refusal else web.json_response(self.take(job))

    async def batch(self, request: web.Request) -> web.Response:
        return web.json_response([self.refusal(job) or self.take(job) for job in await request.json()])

    async def get(self, request: web.Request) -> web.Response:
        asked = request.query.getall("id", [])
        if not asked:
            return web.json_response([] if request.query.get("pending") == "true" else list(self.jobs))
        intermediate = request.query.get("intermediate") == "true"
        found = [self.result(one, intermediate=intermediate) for one in asked if one in self.jobs]
        return web.json_response(found)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        job = await request.json()
        refusal = self.refusal(job)
        if refusal:
            return web.json_response(refusal, status=405)
        response = web.StreamResponse(headers={"content-type": "text/html; charset=utf-8"})
        await response.prepare(request)
        line = f"{self.take(job)['id']}\n".encode()
        pieces = [line + PIECES[0], *PIECES[1:]] if self.glued else [line, *PIECES]
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(FLUSH_S)
            if job["containers"][0] == "broken":
                assert request.transport is not None
                request.transport.abort()
        return response

    async def status(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["status"] not in ("success", "failed", "running"):
            return web.json_response({"error": "Status is invalid"}, status=400)
        self.recorded.append(body)
        return web.json_response(None)

    async def rpc(self, request: web.Request) -> web.Response:
        """Answer as a chain's node: its id is all that the client asks."""
        asked = await request.json()
        assert asked["method"] == "eth_chainId", asked
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": hex(CHAIN_ID)})


@asynccontextmanager
async def open_stand_in() -> AsyncIterator[StandIn]:
    """Run a node on a free port of loopback until the block ends."""
    node = StandIn()
    application = web.Application()
    application.add_routes(
        [
            web.get("/health", node.health),
            web.get("/info", node.info),
            web.get("/resources", node.resources),
            web.post("/api/jobs", node.post),
            web.post("/api/jobs/batch", node.batch),
            web.get("/api/jobs", node.get),
            web.post("/api/jobs/stream", node.stream),
            web.put("/api/status", node.status),
            web.post("/rpc", node.rpc),
        ]
    )
    async with TestServer(application) as server:
        node.url = str(server.make_url("")).rstrip("/")
        yield node
