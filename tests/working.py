"""A kind with files that does not ship, for tests of what is done for any such kind; and a host of it that says what a
test has it say, over plain HTTP."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from comptoir.kinds.files import Artifact, FileKind, file_frame
from comptoir.kinds.units import Unit
from comptoir.link import Frame

TARGET = "tests.working:Work"
PIECE = Unit("piece", "piece", "pieces", 1, "piece")

OFFER = {"name": "smith", "kinds": ["work"], "prices": {"piece": 1_000_000_000}, "can_continue": True}
"""1,000 micro-dollars a piece."""

UPLOAD = "application/offset+octet-stream"


class Work(FileKind):
    """Makes files from files, a piece each."""

    name = "work"
    output = PIECE

    def check(self, body: bytes) -> str:
        """Say what is wrong with a body."""
        try:
            self.inputs(body)
        except msgspec.DecodeError as error:
            return str(error)
        return ""

    def output_max(self, body: bytes) -> int:
        """Return as many as nobody asks for."""
        return 100


def sha(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def items(*frames: Frame) -> list[dict[str, Any]]:
    """Return frames as the native shape has them."""
    return [
        {"text": frame.text, "tokens": frame.tokens, "extra": base64.b64encode(frame.extra).decode()}
        for frame in frames
    ]


@dataclass
class Answered:
    """An answer, read whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's name; empty: it is no error."""
        return str(self.json["error"]["code"]) if self.status >= 400 else ""


@dataclass
class Smith:
    """A polling host of `Work`, at one coordinator or another."""

    session: aiohttp.ClientSession
    url: str
    key: str
    job: str = ""
    lease: str = ""
    seq: int = 0
    """Frames that the job has."""
    body: bytes = b""

    @classmethod
    async def register(cls, session: aiohttp.ClientSession, url: str, **fields: str) -> "Smith":
        """Register a host."""
        body = {"transport": "poll", "gpu": "anvil", "models": [OFFER], "slots": 4} | fields
        async with session.post(url + "/house/hosts", json=body) as answer:
            assert answer.status == 201, await answer.text()
            return cls(session, url, (await answer.json())["api_key"])

    async def ask(self, method: str, path: str, data: Any = None, *, url: str = "", **headers: str) -> Answered:
        """Call the coordinator, or the one at *url*, with the host's key and its lease."""
        sent = {"authorization": f"Bearer {self.key}", "x-comptoir-lease": self.lease}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None and not isinstance(data, bytes):
            data, sent["content-type"] = json.dumps(data).encode(), "application/json"
        asked = self.session.request(
            method, (url or self.url) + path, data=data, headers=sent, skip_auto_headers=("content-type",)
        )
        async with asked as answer:
            return Answered(answer.status, answer.headers, await answer.read())

    async def take(self) -> None:
        """Wait for a job."""
        answer = await self.ask("POST", "/house/host/jobs/next", {"wait_s": 20})
        assert answer.status == 200, answer
        job = answer.json
        self.job, self.lease, self.seq = job["job_id"], job["lease"], job["start_seq"]
        self.body = base64.b64decode(job["body"])

    async def input(self, number: int, *, url: str = "", method: str = "GET", **headers: str) -> Answered:
        """Ask for an input."""
        return await self.ask(method, f"/house/host/jobs/{self.job}/inputs/{number}", url=url, **headers)

    async def begin(self, size: int, *, url: str = "", **metadata: str) -> Answered:
        """Begin to upload an artifact."""
        said = ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in metadata.items())
        headers = {"tus_resumable": "1.0.0", "upload_length": str(size), "upload_metadata": said}
        return await self.ask("POST", f"/house/host/jobs/{self.job}/artifacts", url=url, **headers)

    async def go_on(self, location: str, offset: int, data: bytes, *, url: str = "") -> Answered:
        """Go on with an upload."""
        headers = {"tus_resumable": "1.0.0", "upload_offset": str(offset), "content_type": UPLOAD}
        return await self.ask("PATCH", location, data, url=url, **headers)

    async def look(self, location: str, *, method: str = "HEAD", url: str = "") -> Answered:
        """Ask where an upload is; or, by DELETE, give it up."""
        return await self.ask(method, location, url=url, tus_resumable="1.0.0")

    async def deliver(self, data: bytes, *, name: str = "made.txt", url: str = "") -> Artifact:
        """Upload an artifact."""
        begun = await self.begin(len(data), url=url, filename=name)
        assert begun.status == 201, begun
        location = begun.headers["location"]
        if data:
            brought = await self.go_on(location, 0, data, url=url)
            assert brought.status == 204, brought
        return Artifact(name, location.rpartition("/")[2], len(data), sha(data))

    async def send(self, *frames: Frame) -> Answered:
        """Send frames."""
        fields = {"lease": self.lease, "seq": self.seq, "items": items(*frames)}
        answer = await self.ask("POST", f"/house/host/jobs/{self.job}/frames", fields)
        if answer.status == 200:
            self.seq = answer.json["next_seq"]
        return answer

    async def show(self, *made: Artifact, count: int = 1) -> Answered:
        """Send a frame for each of the artifacts."""
        return await self.send(*(file_frame("", count, artifact=each) for each in made))

    async def done(self, count: int) -> Answered:
        """Complete the job."""
        fields = {"lease": self.lease, "end_seq": self.seq, "finish_reason": "stop"}
        return await self.ask(
            "POST", f"/house/host/jobs/{self.job}/done", fields | {"usage": {"completion_tokens": count}}
        )

    async def fail(self, **fields: str) -> Answered:
        """Give the job back."""
        said = {"lease": self.lease, "code": "gone", "message": "the smith is gone", "fault": "host"} | fields
        return await self.ask("POST", f"/house/host/jobs/{self.job}/fail", said)


@dataclass
class Customer:
    """Buys `Work`."""

    session: aiohttp.ClientSession
    url: str
    key: str

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> Answered:
        """Call the coordinator."""
        sent = {"authorization": f"Bearer {self.key}"} | headers
        if data is not None and not isinstance(data, bytes):
            data, sent["content-type"] = json.dumps(data).encode(), "application/json"
        async with self.session.request(method, self.url + path, data=data, headers=sent) as answer:
            return Answered(answer.status, answer.headers, await answer.read())

    async def put(self, data: bytes, name: str = "a.txt") -> str:
        """Upload a file."""
        answer = await self.ask("POST", f"/house/files?name={name}", data, **{"content-type": "text/plain"})
        assert answer.status == 201, answer
        file: str = answer.json["id"]
        return file

    async def order(self, *inputs: dict[str, Any], **headers: str) -> Answered:
        """Ask for work on files."""
        body = {"kind": "work", "model": "smith", "body": {"inputs": list(inputs), "how": 1e0}}
        return await self.ask("POST", "/house/jobs", body, **headers)

    async def buy(self, *inputs: dict[str, Any]) -> str:
        """Buy work on files; return the job's id."""
        answer = await self.order(*inputs)
        assert answer.status == 201, answer
        job: str = answer.json["id"]
        return job
