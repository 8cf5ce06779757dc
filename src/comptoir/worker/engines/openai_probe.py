"""Finds out how an OpenAI-compatible server continues an answer, by letting it do so.

The test needs no knowledge of server or model. The model is asked a question at temperature 0; then it gets the first
half of its own answer by one method after another, and a method is proven if the second half comes back. A server that
does not know a field, ignores it, closes the message or starts over answers something else, and nothing else is
concluded from that. It takes a handful of requests of a few tokens, once per model; a method whose request fails is not
proven.
"""

import asyncio
import contextlib
import logging
from typing import Any

import msgspec

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.openai_answer import AnswerReader
from comptoir.worker.engines.openai_capabilities import thought_in
from comptoir.worker.engines.openai_continue import ContinuationMethod, ProbeResult
from comptoir.worker.engines.openai_upstream import Upstream, events

_log = logging.getLogger(__name__)

QUESTION = "Count from one to twenty in words."
"""Its answer has a definite continuation at any cut, and no model would start it in the middle."""

ANSWER_TOKENS = 24
REST_TOKENS = 10
"""Tokens requested: first of the whole answer, then of each second half."""

SAME_CHARS_MIN = 8
"""How many characters of the second half must match: fewer may be chance."""

RAW_PROMPT_TOKENS_MAX = 4
"""A one-letter prompt has one token and perhaps a beginning mark; in a chat template it has eight or more."""

MARK = "(counting) "
"""Put before the beginning of an answer, so that the model would not produce that beginning by itself."""

SERVER_TIMEOUT_S = 3.0
"""Most seconds to find out a server's name."""

PROBE_TIMEOUT_S = 30.0
"""Most seconds for the whole probe; methods proven by then count."""


class Tokenizer(msgspec.Struct, frozen=True):
    """How to get token ids from a server."""

    kind: str
    """``vllm``: ``/tokenize`` takes messages or a prompt. ``llama.cpp``: ``/apply-template`` and ``/tokenize``."""
    context_tokens: int = 0
    """Longest context, if the server reports it with the ids; 0: it does not."""

    @property
    def counts_prompt(self) -> bool:
        """Whether a prompt is returned as token ids, and not as text."""
        return self.kind == "vllm"

    async def prompt(self, upstream: Upstream, model: str, fields: dict[str, Any]) -> list[Any]:
        """Return the prompt of a chat request: token ids, or one text and nothing else.

        Raises:
            EngineError: the server does not answer as its kind does.
        """
        if self.kind == "vllm":
            answer = await upstream.ask("/tokenize", {"model": model, "add_generation_prompt": True} | fields)
            return _ids(answer)
        answer = await upstream.ask("/apply-template", fields)
        prompt = answer.get("prompt")
        if not isinstance(prompt, str):
            raise EngineError("upstream_protocol", "/apply-template answered without a prompt")
        return [prompt]

    async def text(self, upstream: Upstream, model: str, text: str) -> list[int]:
        """Return the token ids of a piece of an answer; what looks like a special token in it is text.

        Raises:
            EngineError: the server does not answer as its kind does.
        """
        if self.kind == "vllm":
            return _ids(await upstream.ask("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}))
        body = {"content": text, "add_special": False, "parse_special": False}
        return _ids(await upstream.ask("/tokenize", body))


class Found(msgspec.Struct, frozen=True):
    """What was found out about one model."""

    methods: tuple[ProbeResult, ...] = ()
    """Best first."""
    tokenizer: Tokenizer | None = None
    server: str = ""
    """The server's name for itself."""
    why_not: str = ""
    answers: bool = False
    """Whether it answered a question in a chat."""
    thinks: bool = False
    """Whether it thought before that."""
    conclusive: bool = True
    """False if the server failed or was too slow: another probe may give another result."""

    @property
    def words(self) -> str:
        """Return the methods in words; empty without any."""
        methods = ", ".join(proven.method.value for proven in self.methods)
        return f"{methods} ({self.server})" if methods and self.server else methods


class _Probe:
    """One model under examination."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream = upstream
        self._model = model
        self._head = ""
        self._tail = ""
        self.methods: list[ProbeResult] = []
        self.tokenizer: Tokenizer | None = None
        self.why_not = ""
        self.answers = self.thinks = False

    async def chat(self) -> None:
        """Try the methods of continuing a chat: token ids, and the first of the others that works."""
        frames = await self._stream("/chat/completions", {"messages": _QUESTION, "max_tokens": ANSWER_TOKENS})
        texts = [frame.text for frame in frames if frame.text]
        self.answers = True
        self.thinks = any(thought_in(_delta(frame)) for frame in frames)
        middle = len(texts) // 2
        self._head, self._tail = "".join(texts[:middle]), "".join(texts[middle:])
        if any(_delta(frame) for frame in frames):
            self.why_not = "the model thinks before it answers"
        elif len(self._head.strip()) < SAME_CHARS_MIN or len(self._tail) < SAME_CHARS_MIN:
            self.why_not = "its answer to a short question has no two halves"
        if self.why_not:
            return
        await self._tokens()
        for method in (ContinuationMethod.FINAL, ContinuationMethod.PREFIX, ContinuationMethod.PREFILL):
            if await self._message(method):
                return
        if not self.methods:
            self.why_not = "given the beginning of its answer, it starts over"

    async def plain(self) -> None:
        """Find out whether a completion's prompt is used unchanged, and not put into a chat template (Ollama)."""
        body = {"model": self._model, "prompt": "a", "max_tokens": 1, "temperature": 0}
        with contextlib.suppress(EngineError):
            usage = (await self._upstream.ask(self._v1 + "/completions", body)).get("usage")
            counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
            if isinstance(counted, int) and 1 <= counted <= RAW_PROMPT_TOKENS_MAX:
                self.methods.append(ProbeResult(ContinuationMethod.PLAIN))

    @property
    def _v1(self) -> str:
        return self._upstream.base.removeprefix(self._upstream.root)

    async def _tokens(self) -> None:
        for kind in ("vllm", "llama.cpp"):
            tokenizer = Tokenizer(kind)
            with contextlib.suppress(EngineError):
                prompt = await tokenizer.prompt(self._upstream, self._model, {"messages": _QUESTION})
                own = await tokenizer.text(self._upstream, self._model, self._head)
                if not prompt or not own:
                    continue
                said = await self._complete("/completions", {"prompt": [*prompt, *own], "max_tokens": REST_TOKENS})
                if self._goes_on(said):
                    self.methods.append(ProbeResult(ContinuationMethod.TOKENS))
                    self.tokenizer = Tokenizer(kind, await self._context(kind))
                    return

    async def _context(self, kind: str) -> int:
        if kind != "vllm":
            return 0
        answer = await self._upstream.ask("/tokenize", {"model": self._model, "prompt": "a"})
        longest = answer.get("max_model_len")
        return longest if isinstance(longest, int) else 0

    async def _message(self, method: ContinuationMethod) -> bool:
        sent = self._head.rstrip()
        try:
            said = await self._after(sent, method)
            echoes = said.startswith(sent) and await self._echoes(method)
        except EngineError as error:
            _log.debug("%s does not go on by %s: %s", self._model, method, error.message)
            return False
        beyond = said.removeprefix(sent) if echoes else said
        if not self._goes_on(_without(beyond, self._head[len(sent) :])):
            return False
        self.methods.append(ProbeResult(method, echoes))
        return True

    async def _echoes(self, method: ContinuationMethod) -> bool:
        """Distinguish a server that repeats the given beginning from one that starts over and says the same."""
        other = MARK + self._head.rstrip()
        return (await self._after(other, method)).startswith(other)

    async def _after(self, sent: str, method: ContinuationMethod) -> str:
        """Return what comes after *sent* as the last message."""
        last: dict[str, Any] = {"role": "assistant", "content": sent}
        body: dict[str, Any] = {"max_tokens": REST_TOKENS + len(sent) // 2}
        if method is ContinuationMethod.FINAL:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        elif method is ContinuationMethod.PREFIX:
            last["prefix"] = True
        return await self._complete("/chat/completions", body | {"messages": [*_QUESTION, last]})

    def _goes_on(self, said: str) -> bool:
        same = min(len(said), len(self._tail))
        whole = self._head + self._tail
        # A repetitive answer proves nothing: its beginning would look like its rest.
        return same >= SAME_CHARS_MIN and said[:same] == self._tail[:same] and not whole.startswith(said[:same])

    async def _complete(self, path: str, body: dict[str, Any]) -> str:
        return "".join(frame.text for frame in await self._stream(path, body))

    async def _stream(self, path: str, body: dict[str, Any]) -> list[Frame]:
        """Send it like buyers' requests, streamed: some servers answer differently without streaming (llama.cpp)."""
        full = {"model": self._model, "temperature": 0, "stream": True} | body
        response = await self._upstream.post_stream(path, msgspec.json.encode(full))
        try:
            frames: list[Frame] = []
            async with contextlib.aclosing(events(response, AnswerReader())) as pieces:
                async for some in pieces:
                    frames += some
            return frames
        finally:
            response.close()


_QUESTION = [{"role": "user", "content": QUESTION}]


async def find_methods(upstream: Upstream, model: str, *, kinds: list[str], owned_by: str = "") -> Found:
    """Probe *model*; does not raise for anything that a server answers.

    Args:
        owned_by: what its list of models says; some servers are told apart by that alone.
    """
    probe = _Probe(upstream, model)
    conclusive = False
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            if "chat" in kinds:
                await probe.chat()
            if "completion" in kinds:
                await probe.plain()
        conclusive = True
    except TimeoutError:
        probe.why_not = f"it was not found out within {PROBE_TIMEOUT_S:g} s"
    except EngineError as error:
        probe.why_not = error.message
    server = await _server(upstream, owned_by)
    return Found(tuple(probe.methods), probe.tokenizer, server, probe.why_not, probe.answers, probe.thinks, conclusive)


async def _server(upstream: Upstream, owned_by: str) -> str:
    """Return the server's name for itself, for people only."""
    places = (
        ("/api/version", "version", "Ollama"),
        ("/version", "version", "TensorRT-LLM" if owned_by == "tensorrt_llm" else "vLLM"),
        ("/get_model_info", "model_path", "SGLang"),
        ("/props", "build_info", "llama.cpp"),
        ("/info", "version", "TGI"),
    )
    if owned_by == "organization_owner":
        return "LM Studio"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SERVER_TIMEOUT_S):
            found = await asyncio.gather(*(upstream.look(path) for path, _, _ in places))
            for (_, key, name), answer in zip(places, found, strict=True):
                said = answer.get(key)
                if isinstance(said, str):
                    return name if key == "model_path" else f"{name} {said}"[:64]
    return ""


def _delta(frame: Frame) -> object:
    return msgspec.json.decode(frame.extra).get("delta") if frame.extra else None


def _without(said: str, trimmed: str) -> str:
    same = 0
    while same < min(len(said), len(trimmed)) and said[same] == trimmed[same]:
        same += 1
    return said[same:]


def _ids(answer: dict[str, Any]) -> list[int]:
    tokens = answer.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise EngineError("upstream_protocol", "/tokenize answered without token ids")
    return tokens
