"""An OpenAI-compatible server down to the bytes: a test decides what is written, where it is split and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.tcp import serving

MODELS = {
    "object": "list",
    "data": [{"id": "up/model-7b", "object": "model", "owned_by": "vllm", "max_model_len": 8192}],
}


class Request:
    """One request as it came in."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded


class Answer:
    """Writes one HTTP/1.1 answer."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def whole(self, status: int, body: bytes, *, content_type: str = "application/json", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    def begin_stream(self) -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    async def piece(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    def end_stream(self) -> None:
        self.writer.write(b"0\r\n\r\n")

    def reset(self) -> None:
        self.writer.transport.abort()


Handler = Callable[[Request, Answer], Awaitable[None]]


def sse(*events: Any, done: bool = True, newline: bytes = b"\n") -> bytes:
    """Spell events (objects, or ready bytes) as a stream body."""
    lines = [event if isinstance(event, bytes) else msgspec.json.encode(event) for event in events]
    if done:
        lines.append(b"[DONE]")
    return b"".join(b"data: " + line + newline + newline for line in lines)


def delta(fields: dict[str, Any], *, index: int = 0, **choice: Any) -> dict[str, Any]:
    """Spell one chat chunk."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up/model-7b",
        "choices": [{"index": index, "delta": fields, "logprobs": None, "finish_reason": None, **choice}],
    }


def usage(prompt: int, completion: int, **details: Any) -> dict[str, Any]:
    """Spell the usage chunk."""
    counted = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **details}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [],
        "usage": counted,
    }


def stream_of(body: bytes, *, split: int = 0) -> Handler:
    """Answer with *body* as a stream, in pieces of *split* bytes (0: one piece)."""

    async def handle(request: Request, answer: Answer) -> None:
        answer.begin_stream()
        for start in range(0, len(body), split or len(body)):
            await answer.piece(body[start : start + (split or len(body))])
            if split:
                # Give the reader a turn, so that the pieces arrive one by one.
                await asyncio.sleep(0)
        answer.end_stream()

    return handle


class OpenAIStandIn:
    """Serves ``/v1/models`` from *models* and everything else with *handler*."""

    def __init__(self) -> None:
        self.base_url = ""
        self.port = 0
        self.models: Any = MODELS
        self.models_status = 200
        self.models_asked = 0
        self.models_hang = False
        self.models_redirect = ""
        """Where the list of models is instead."""
        self.handler: Handler = stream_of(sse(delta({"content": "hi"}), delta({}, finish_reason="stop")))
        self.requests: list[Request] = []
        """What was posted; what is only looked at is answered and not kept."""
        self.connections = 0
        self.gone = asyncio.Event()
        """Set when a client hung up in the middle of an answer."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, path, headers, body)
                answer = Answer(writer)
                if path in ("/v1/models", "/other/models"):
                    self.models_asked += 1
                    if self.models_hang:
                        await asyncio.Event().wait()
                    if path == "/v1/models" and self.models_redirect:
                        await answer.whole(307, b"", Location=self.models_redirect)
                        continue
                    await answer.whole(self.models_status, msgspec.json.encode(self.models))
                    continue
                if method == "POST":
                    self.requests.append(request)
                handling = asyncio.create_task(self._handle(request, answer))
                watching = asyncio.create_task(reader.read(1)) if not reader.at_eof() else None
                await asyncio.wait([task for task in (handling, watching) if task], return_when=asyncio.FIRST_COMPLETED)
                if watching is not None and not watching.done():
                    watching.cancel()
                    await asyncio.wait((watching,))
                elif watching is not None:
                    watching.exception()  # Ended or reset, it is over.
                if not handling.done():
                    self.gone.set()
                    handling.cancel()
                    await asyncio.wait((handling,))
                    return
                try:
                    await handling
                except ConnectionError:
                    self.gone.set()  # A write noticed it before the read did.
                    raise
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _handle(self, request: Request, answer: Answer) -> None:
        await self.handler(request, answer)


@asynccontextmanager
async def serve_openai(*, port: int = 0) -> AsyncIterator[OpenAIStandIn]:
    """Run a stand-in on *port* of 127.0.0.1 (0: a free one)."""
    stand_in = OpenAIStandIn()
    async with serving(stand_in.connected, port=port) as port:
        stand_in.port, stand_in.base_url = port, f"http://127.0.0.1:{port}"
        yield stand_in
