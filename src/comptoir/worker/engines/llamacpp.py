"""The llamacpp engine: a GGUF file served in this process, several requests at once, one frame per token.

A request runs in a thread of its own inside llama.cpp's server and puts its frames into a mailbox that the event loop
empties.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from comptoir.kinds.capabilities import CLAIMED, LACKING
from comptoir.kinds.tokens.capabilities import SCHEMA, TOOLS, VISION
from comptoir.link import Frame, ModelOffer, Usage

from .base import EngineError, EngineRequest, Finish
from .gguf_metadata import NotGguf, TokenBytes, Value, read_metadata, token_bytes
from .llamacpp_answers import FrameMailbox, PlainAnswer, ToolAnswer
from .llamacpp_request import read_ask, read_embedding, refuse
from .llamacpp_server import CONTEXT_STEP, LlamaServer

log = logging.getLogger(__name__)

FINGERPRINT_BYTES_MAX = 4 << 30
"""Larger files are not hashed at start: that would take longer than loading them."""
_EMBEDDING_ONLY = frozenset({"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "neo-bert"})

Json = dict[str, Any]


class LlamaCppEngine:
    """A GGUF file behind the worker."""

    defaults: Json = {}
    """llama.cpp fields for requests that leave them open (``n_predict``: the longest answer)."""

    def __init__(
        self, *, path: Path | str, name: str, context_tokens: int = 4096, slots: int = 4, threads: int = 2
    ) -> None:
        """*context_tokens* is prompt and answer together, for each of *slots* requests at once.

        It is lowered to what the model was trained for, and to a multiple of `CONTEXT_STEP` (which is the least).
        """
        self.name = name
        self._path = Path(path)
        self._context = context_tokens
        self._slots = slots
        self._threads = threads
        self._server: LlamaServer | None = None
        self._table: TokenBytes | None = None
        self._knows_tools = False
        self._offer: ModelOffer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._running: set[FrameMailbox] = set()

    async def start(self) -> None:
        """Load the file. Raises EngineError."""
        await asyncio.to_thread(self._load)
        self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix=f"llamacpp-{self.name}")

    def _load(self) -> None:
        try:
            metadata = read_metadata(self._path)
            fingerprint = _fingerprint(self._path)
        except OSError as error:
            raise EngineError("model_not_found", f"can't read the model file {self._path}: {error.strerror}") from error
        except NotGguf as error:
            raise EngineError("model_not_loaded", f"{self._path} is not a usable GGUF file: {error}") from error
        trained = metadata.get(f"{metadata.get('general.architecture')}.context_length")
        if isinstance(trained, int):
            self._context = min(self._context, trained)
        self._context = max(CONTEXT_STEP, self._context // CONTEXT_STEP * CONTEXT_STEP)
        embedding = _is_embedding(metadata)
        self._table = token_bytes(metadata)
        self._knows_tools = "tools" in str(metadata.get("tokenizer.chat_template", ""))
        self._server = LlamaServer(
            self._path, context_tokens=self._context, slots=self._slots, threads=self._threads, embedding=embedding
        )
        self._offer = ModelOffer(
            name=self.name,
            kinds=["embedding"] if embedding else ["chat", "completion"],
            context_tokens=self._context,
            can_continue=not embedding and self._table is not None,
            fingerprint=fingerprint,
            capabilities={} if embedding else self._able(),
        )

    def _able(self) -> dict[str, str]:
        # A grammar needs nothing of the model. One that was not trained on tools is given them, and answers in words.
        return {**({TOOLS: CLAIMED} if self._knows_tools else {}), VISION: LACKING, SCHEMA: CLAIMED}

    async def models(self) -> list[ModelOffer]:
        """Return the one model of the file."""
        return [self._offer] if self._offer is not None else []

    async def detect(self) -> None:
        """Do nothing: everything is known from the file."""

    def continuation(self, model: str) -> str:
        """Return how the model continues answers; see `Continues`."""
        return "token ids" if self._offer is not None and self._offer.can_continue else ""

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield frames, then one Finish. Raises EngineError."""
        server, pool = self._server, self._pool
        if server is None or pool is None or self._offer is None:
            raise _closed(self.name)
        if request.kind not in self._offer.kinds:
            kinds = " and ".join(self._offer.kinds)
            raise refuse("unsupported_kind", f"model: {self.name} serves {kinds}, not {request.kind}", field="model")
        work = self._embed(request, server) if request.kind == "embedding" else self._answer(request, server)
        mailbox = FrameMailbox(asyncio.get_running_loop())
        self._running.add(mailbox)
        job = pool.submit(_work, self.name, work, mailbox)
        try:
            while True:
                item = await mailbox.take()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            mailbox.cancelled = True
            self._running.discard(mailbox)
            if not job.cancel():
                # The slot is free when this returns; llama.cpp checks the flag at every token and prompt batch.
                await asyncio.wait([asyncio.wrap_future(job)])

    async def close(self) -> None:
        """Stop running requests (their readers get an EngineError), then free the model."""
        pool, server = self._pool, self._server
        self._pool = self._server = None
        for mailbox in list(self._running):
            mailbox.cancelled = True
            mailbox.put(_closed(self.name))
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        if server is not None:
            await asyncio.to_thread(server.close)

    # -- in the request's thread ---------------------------------------------------------------------------------

    def _embed(self, request: EngineRequest, server: LlamaServer) -> Callable[[FrameMailbox], None]:
        body, encoding = read_embedding(request)
        body["encoding_format"] = encoding

        def work(mailbox: FrameMailbox) -> None:
            answer = server.embed(body)
            mailbox.put(Frame("", 0, msgspec.json.encode({"data": answer["data"]})))
            usage = answer.get("usage", {})
            mailbox.put(Finish("stop", Usage(int(usage.get("prompt_tokens", 0)), 0)))

        return work

    def _answer(self, request: EngineRequest, server: LlamaServer) -> Callable[[FrameMailbox], None]:
        ask = read_ask(request, defaults=self.defaults)
        if ask.tools and not self._knows_tools:
            # With "auto" the model chooses, and one that was not trained on tools never calls one.
            if ask.tools.get("tool_choice", "auto") != "auto":
                raise refuse("unsupported_value", f"tool_choice: {self.name} can't call tools", field="tool_choice")
        elif ask.tools:
            return ToolAnswer(ask, request.prefix, server).run
        return PlainAnswer(ask, request.prefix, server, self._table).run


def _work(name: str, work: Callable[[FrameMailbox], None], mailbox: FrameMailbox) -> None:
    """Run one request's work in its thread; any error is passed to the loop, where it is raised."""
    if mailbox.cancelled:
        return
    try:
        work(mailbox)
    except EngineError as error:
        mailbox.put(error)
    except Exception as error:
        # The edge of the thread: without this, the reader would wait for ever for a dead request.
        log.exception("a request to %s failed", name)
        mailbox.put(EngineError("engine_failed", f"{name} failed: {error}"))


def _closed(name: str) -> EngineError:
    return EngineError("engine_closed", f"the engine {name} is not running", fault="capacity", status=503)


def _is_embedding(metadata: dict[str, Value]) -> bool:
    architecture = metadata.get("general.architecture")
    pooling = metadata.get(f"{architecture}.pooling_type", 0)
    return architecture in _EMBEDDING_ONLY or (isinstance(pooling, int) and pooling > 0)


def _fingerprint(path: Path) -> str:
    if path.stat().st_size > FINGERPRINT_BYTES_MAX:
        log.info("%s is larger than %d bytes, its fingerprint is left open", path.name, FINGERPRINT_BYTES_MAX)
        return ""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
