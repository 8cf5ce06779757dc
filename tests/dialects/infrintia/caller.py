"""An Infrintia client for tests: plain HTTP with one credential, and what it takes to play a host."""

import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp

LLAMA = "meta-llama/Llama-3-8B-Instruct"
REGISTRATION = {"gpu": "NVIDIA A100 80GB", "models": [LLAMA], "price_per_token": 0.0001, "backend": "huggingface"}


@dataclass
class Answer:
    """What came back."""

    status: int
    text: str
    headers: dict[str, str]
    body: Any = field(init=False)

    def __post_init__(self) -> None:
        self.body = json.loads(self.text) if self.text and "json" in self.headers.get("content-type", "") else None


@dataclass
class Caller:
    """One person or host."""

    session: aiohttp.ClientSession
    url: str
    key: str = ""
    host_id: str = ""

    async def ask(self, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
        """Send one request and read the whole answer; header names with ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent.setdefault("content-type", "application/json")
        if self.key and "authorization" not in sent:
            sent["authorization"] = f"Bearer {self.key}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, await response.text(), lower)

    async def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return await self.ask("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        """POST."""
        return await self.ask("POST", path, body=body, **headers)

    async def register(self, **fields: Any) -> "Caller":
        """Register a host; gives the caller that it is."""
        answer = await self.post("/hosts/register", REGISTRATION | fields)
        assert answer.status == 201, answer.text
        return Caller(self.session, self.url, answer.body["api_key"], answer.body["host_id"])

    async def next_job(self, **fields: Any) -> Answer:
        """Poll as a host."""
        return await self.post("/hosts/next-job", {"host_id": self.host_id} | fields)

    async def chunk(self, job_id: str, *tokens: str, **fields: Any) -> Answer:
        """Deliver pieces as a host."""
        return await self.post(f"/hosts/jobs/{job_id}/chunk", {"host_id": self.host_id, "tokens": tokens} | fields)

    async def complete(self, job_id: str, **fields: Any) -> Answer:
        """Complete as a host."""
        return await self.post(f"/hosts/complete-job/{job_id}", {"host_id": self.host_id} | fields)

    async def fail(self, job_id: str, **fields: Any) -> Answer:
        """Give a job back as a host."""
        return await self.post(f"/hosts/fail-job/{job_id}", {"host_id": self.host_id, "error": "oom"} | fields)

    async def run(self, *, text: str = "Explain quantum computing.", max_tokens: int = 256, **headers: str) -> Answer:
        """Buy an answer of the one model."""
        body = {"model": LLAMA, "input_text": text, "max_tokens": max_tokens, "temperature": 0.7}
        return await self.post("/run/model", body, **headers)


def events(text: str) -> list[tuple[int | None, str]]:
    """Split an event stream into (id, data); comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((int(fields["id"]) if "id" in fields else None, fields["data"]))
    return found
