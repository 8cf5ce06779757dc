"""The llamacpp engine: a GGUF file served in this process, several requests at once, one frame a token.

A request runs in a thread of its own inside llama.cpp's server and puts its frames into an outbox that the event loop
empties. Plain answers go on token-exactly after another host's frames: the prompt is given as text and the delivered
tokens as ids. Answers under a grammar (``response_format``, ``tools``) can't begin in the middle; they are made again
from the start and compared with what was delivered.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from comptoir.link import Frame, ModelOffer, Usage

from .base import EngineError, EngineRequest, Finish
from .gguf_metadata import NotGguf, TokenBytes, Value, read_metadata, token_bytes
from .llamacpp_pieces import Framer, Piece, StopScanner, ended_by_stop, prefix_ids
from .llamacpp_request import Ask, read_ask, read_embedding, refuse
from .llamacpp_server import CONTEXT_STEP, Choice, Chunk, LlamaServer

log = logging.getLogger(__name__)

FINGERPRINT_BYTES_MAX = 4 << 30
"""Larger files are not hashed at start: that would take longer than loading them."""
_EMBEDDING_ONLY = frozenset({"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "neo-bert"})

Json = dict[str, Any]
Item = Frame | Finish | BaseException


class Outbox:
    """Frames on their way from a request's thread to the event loop; bounded by the length of one answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Item] = deque()
        self._ready = asyncio.Event()
        self._asleep = False
        self.cancelled = False

    def put(self, item: Item) -> None:
        """Hand over one item (from the thread); wakes the loop only when it waits."""
        self._items.append(item)
        if self._asleep:
            self._asleep = False
            self._loop.call_soon_threadsafe(self._ready.set)

    async def take(self) -> Item:
        """Return the next item (on the loop)."""
        while not self._items:
            self._ready.clear()
            self._asleep = True
            # Looked at again: the thread may have put one before it could see that we sleep.
            if not self._items:
                await self._ready.wait()
            self._asleep = False
        return self._items.popleft()


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
        self._running: set[Outbox] = set()

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
        )

    async def models(self) -> list[ModelOffer]:
        """Return the one model of the file."""
        return [self._offer] if self._offer is not None else []

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield frames, then one Finish. Raises EngineError."""
        server, pool = self._server, self._pool
        if server is None or pool is None or self._offer is None:
            raise _closed(self.name)
        if request.kind not in self._offer.kinds:
            kinds = " and ".join(self._offer.kinds)
            raise refuse("unsupported_kind", f"model: {self.name} serves {kinds}, not {request.kind}", field="model")
        work = self._embed(request, server) if request.kind == "embedding" else self._answer(request, server)
        outbox = Outbox(asyncio.get_running_loop())
        self._running.add(outbox)
        job = pool.submit(_work, work, outbox)
        try:
            while True:
                item = await outbox.take()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            outbox.cancelled = True
            self._running.discard(outbox)
            if not job.cancel():
                # The slot is free when this returns; llama.cpp looks at the flag at every token and prompt batch.
                await asyncio.wait([asyncio.wrap_future(job)])

    async def close(self) -> None:
        """Stop what runs (its readers get an EngineError), then free the model."""
        pool, server = self._pool, self._server
        self._pool = self._server = None
        for outbox in list(self._running):
            outbox.cancelled = True
            outbox.put(_closed(self.name))
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        if server is not None:
            await asyncio.to_thread(server.close)

    # -- in the request's thread ---------------------------------------------------------------------------------

    def _embed(self, request: EngineRequest, server: LlamaServer) -> Callable[[Outbox], None]:
        body, encoding = read_embedding(request)
        body["encoding_format"] = encoding

        def work(outbox: Outbox) -> None:
            answer = server.embed(body)
            outbox.put(Frame("", 0, msgspec.json.encode({"data": answer["data"]})))
            usage = answer.get("usage", {})
            outbox.put(Finish("stop", Usage(int(usage.get("prompt_tokens", 0)), 0)))

        return work

    def _answer(self, request: EngineRequest, server: LlamaServer) -> Callable[[Outbox], None]:
        ask = read_ask(request, defaults=self.defaults)
        if ask.tools and not self._knows_tools:
            # With "auto" the choice is the model's, and one that was never taught tools never calls one.
            if ask.tools.get("tool_choice", "auto") != "auto":
                raise refuse("unsupported_value", f"tool_choice: {self.name} can't call tools", field="tool_choice")
        elif ask.tools:
            return _ToolAnswer(ask, request.prefix, server).run
        return _PlainAnswer(ask, request.prefix, server, self._table).run


class _PlainAnswer:
    """One request over the completion endpoint, where every token's id is told."""

    def __init__(self, ask: Ask, prefix: Sequence[Frame], server: LlamaServer, table: TokenBytes | None) -> None:
        self._ask = ask
        self._prefix = prefix
        self._server = server
        self._table = table
        self._stops = StopScanner(ask.stops)
        self._framer = Framer(
            table, kind=ask.kind, top_logprobs=ask.top_logprobs, offset=sum(len(frame.text) for frame in prefix)
        )
        self._seen = 0
        self._delivered = 0
        self._usage = Usage()
        self._replay: _Replay | None = None
        self._given = 0
        self._finish = ""

    def run(self, outbox: Outbox) -> None:
        ask = self._ask
        prompt = ask.prompt if ask.kind == "completion" else self._server.apply_template(ask.messages)
        body = self._body(prompt)
        left = ask.max_tokens - sum(frame.tokens for frame in self._prefix)
        if self._prefix and (ended_by_stop(self._prefix) or (ask.max_tokens >= 0 and left <= 0)):
            tokens = self._server.count(prompt) if isinstance(prompt, str) else len(prompt)
            reason = "stop" if ended_by_stop(self._prefix) else "length"
            outbox.put(Finish(reason, Usage(tokens, 0)))
            return
        self._server.stream(body, lambda chunk: self._chunk(chunk, outbox), chat=False)
        if outbox.cancelled:
            return
        if self._replay is not None:
            self._replay.check_complete()
        outbox.put(Finish(self._finish, Usage(self._usage.prompt_tokens - self._given, self._delivered)))

    def _body(self, prompt: str | list[int]) -> Json:
        ask = self._ask
        before = sum(frame.tokens for frame in self._prefix)
        ids = prefix_ids(self._prefix, self._table) if "json_schema" not in ask.options else None
        if ids is None:
            self._replay = _Replay(self._prefix)
            before, ids = 0, []
        self._given = len(ids)
        parts: list[str | int] = [prompt, *ids] if isinstance(prompt, str) else [*prompt, *ids]
        body = ask.options | {
            "prompt": parts,
            "n_predict": ask.max_tokens - before if ask.max_tokens >= 0 else -1,
            "stream": True,
            "verbose": True,
            "return_tokens": True,
            "return_progress": True,
        }
        if ask.top_logprobs >= 0:
            body["n_probs"] = max(1, ask.top_logprobs)
        return body

    def _chunk(self, chunk: Chunk, outbox: Outbox) -> bool:
        """Take one message; True stops llama.cpp."""
        if outbox.cancelled:
            return True
        choice, verbose = chunk.choices[0], chunk.verbose
        if verbose is None or chunk.prompt_progress is not None:
            return False
        self._usage = Usage(verbose.tokens_evaluated, verbose.tokens_predicted)
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
            self._deliver(self._stops.rest(), outbox)
            return False
        if not choice.text:
            # The end-of-answer token; tokens of an unfinished character send nothing at all.
            return False
        self._deliver(self._stops.feed(self._piece(choice, verbose.tokens, verbose.tokens_predicted)), outbox)
        if self._stops.hit:
            self._finish = "stop"
        return self._stops.hit

    def _piece(self, choice: Choice, tokens: list[int], predicted: int) -> Piece:
        count, self._seen = predicted - self._seen, predicted
        ids: list[int] | None = tokens
        if count != 1:
            ids = self._table.ids_of(choice.text, last=tokens[-1], count=count) if self._table is not None else None
        return Piece(choice.text, count, ids, choice.logprobs.content if choice.logprobs is not None else [])

    def _deliver(self, pieces: Sequence[Piece], outbox: Outbox) -> None:
        for piece in pieces:
            frame = self._framer.frame(piece)
            if self._replay is not None and self._replay.covers(frame):
                continue
            self._delivered += frame.tokens
            outbox.put(frame)


class _ToolAnswer:
    """One chat with tools, through llama.cpp's chat layer, which parses the calls out of the text."""

    def __init__(self, ask: Ask, prefix: Sequence[Frame], server: LlamaServer) -> None:
        self._ask = ask
        self._server = server
        self._replay = _Replay(prefix)
        self._seen = 0
        self._delivered = 0
        self._prompt_tokens = 0
        self._finish = ""

    def run(self, outbox: Outbox) -> None:
        ask = self._ask
        body = ask.options | ask.tools
        body |= {"messages": ask.messages, "n_predict": ask.max_tokens, "stop": list(ask.stops), "stream": True}
        # Chat chunks don't name their tokens; these counters say how many each stands for.
        body |= {"timings_per_token": True, "verbose": True}
        if "json_schema" in body:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": body.pop("json_schema")}}
        self._server.stream(body, lambda chunk: self._chunk(chunk, outbox), chat=True)
        if outbox.cancelled:
            return
        self._replay.check_complete()
        outbox.put(Finish(self._finish, Usage(self._prompt_tokens, self._delivered)))

    def _chunk(self, chunk: Chunk, outbox: Outbox) -> bool:
        if outbox.cancelled:
            return True
        choice = chunk.choices[0]
        if chunk.timings is not None:
            self._prompt_tokens = chunk.timings.prompt_n + chunk.timings.cache_n
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
        frame = self._frame(chunk, choice)
        if frame is not None and not self._replay.covers(frame):
            self._delivered += frame.tokens
            outbox.put(frame)
        return False

    def _frame(self, chunk: Chunk, choice: Choice) -> Frame | None:
        delta = choice.delta
        if delta is None or (not delta.content and not delta.reasoning_content and not delta.tool_calls):
            return None
        predicted = chunk.timings.predicted_n if chunk.timings is not None else self._seen
        count, self._seen = predicted - self._seen, max(predicted, self._seen)
        other: Json = {}
        if delta.reasoning_content:
            other["reasoning_content"] = delta.reasoning_content
        if delta.tool_calls:
            other["tool_calls"] = delta.tool_calls
        return Frame(delta.content or "", max(0, count), msgspec.json.encode({"delta": other}) if other else b"")


class _Replay:
    """An answer made again from its start: drops the frames delivered before, after making sure they are the same."""

    def __init__(self, prefix: Sequence[Frame]) -> None:
        self._prefix = prefix
        self._at = 0

    def covers(self, frame: Frame) -> bool:
        """Return whether *frame* was delivered before.

        Raises:
            EngineError: another frame was delivered in its place.
        """
        if self._at == len(self._prefix):
            return False
        before = self._prefix[self._at]
        if (before.text, before.tokens) != (frame.text, frame.tokens):
            raise _differs(self._at)
        self._at += 1
        return True

    def check_complete(self) -> None:
        """Make sure that everything delivered came again. Raises EngineError."""
        if self._at < len(self._prefix):
            raise _differs(self._at)


def _differs(place: int) -> EngineError:
    return EngineError(
        "cannot_continue",
        f"made again, the answer differs at frame {place}; it can't go on from another host",
        fault="coordinator",
    )


def _work(work: Callable[[Outbox], None], outbox: Outbox) -> None:
    """Run one request's work in its thread; whatever goes wrong travels to the loop, where it is raised."""
    if outbox.cancelled:
        return
    try:
        work(outbox)
    except BaseException as error:
        outbox.put(error)


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
