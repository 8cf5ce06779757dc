"""llama.cpp's server inside this process, through xllamacpp: load, ask, stream, count.

xllamacpp always opens llama.cpp's HTTP server as well. It listens on a random port of the loopback address and gets a
random key, which only this module knows; the two questions xllamacpp does not answer in the process (apply the chat
template, count tokens) go there.
"""

import http.client
import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import xllamacpp

from .base import EngineError
from .llamacpp_pieces import TokenLogprob
from .llamacpp_request import refuse

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 60.0
"""For the loopback questions; they wait for nobody's answer."""
CONTEXT_STEP = 256
"""llama.cpp gives each sequence a multiple of this many tokens."""
_OK = 200

Json = dict[str, Any]


class Verbose(msgspec.Struct):
    """What llama.cpp adds to a chunk on ``verbose``."""

    tokens: list[int] = []
    tokens_predicted: int = 0
    tokens_evaluated: int = 0


class Logprobs(msgspec.Struct):
    """llama.cpp's logprobs of one chunk."""

    content: list[TokenLogprob] = []


class Delta(msgspec.Struct):
    """A chat chunk's delta."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Json] | None = None


class LlamaChoice(msgspec.Struct):
    """One choice of a chunk; ``text`` of a completion, ``delta`` of a chat."""

    text: str = ""
    delta: Delta | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Timings(msgspec.Struct):
    """Counters of ``timings_per_token``."""

    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


class LlamaError(msgspec.Struct):
    """llama.cpp's error object."""

    message: str = ""
    type: str = ""
    code: int = 500


class LlamaChunk(msgspec.Struct):
    """One message of a stream."""

    choices: list[LlamaChoice] = []
    verbose: Verbose | None = msgspec.field(default=None, name="__verbose")
    timings: Timings | None = None
    prompt_progress: Json | None = None
    error: LlamaError | None = None


_read_chunk = msgspec.json.Decoder(LlamaChunk).decode
_encode = msgspec.json.encode


class LlamaServer:
    """A loaded model. Every method blocks and belongs in a thread; several threads may ask at once."""

    def __init__(self, path: Path, *, context_tokens: int, slots: int, threads: int, embedding: bool) -> None:
        """Load *path* with *slots* sequences of *context_tokens* each.

        Raises:
            EngineError: llama.cpp can't load the file.
        """
        key = secrets.token_urlsafe(24)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_tokens * slots
        params.n_parallel = slots
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.api_keys = [key]
        params.n_threads_http = 1
        params.ui = False
        params.endpoint_slots = False
        params.verbosity = 0
        # A second cache in main memory (8 GiB by default) would come on top of the slots' own.
        params.cache_ram_mib = 0
        params.warmup = False
        # An assistant message at the end is a turn of its own, as at OpenAI, not a beginning to go on from.
        params.prefill_assistant = False
        params.embedding = embedding
        if embedding:
            params.n_batch = params.n_ubatch = context_tokens
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise EngineError(
                "model_not_loaded",
                f"llama.cpp can't load {path.name}: is it a complete GGUF file, and does it fit the memory?",
            ) from error
        self._address = str(self._server.listening_address).partition("//")[2]
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        # Its loop starts a moment after the constructor returns, and freeing it before that would wait for ever.
        # An answered request is the proof that it runs, and reads the weights once before a buyer waits for them.
        if embedding:
            self.embed({"input": "a"})
        else:
            self.stream({"prompt": "a", "n_predict": 1, "stream": True}, lambda _: False, chat=False)
        self._asking = threading.Lock()
        self._connection = http.client.HTTPConnection(self._address, timeout=ASK_TIMEOUT_S)

    def stream(self, request: Json, on_chunk: Callable[[LlamaChunk], bool], *, chat: bool) -> None:
        """Ask and call *on_chunk* for every message until it returns True or the answer ends.

        Raises:
            EngineError: llama.cpp refused the request or failed.
            Exception: whatever *on_chunk* raised.
        """
        failed: list[Exception] = []

        def take(text: str) -> bool:
            try:
                chunk = _read_chunk(text)
                if chunk.error is not None:
                    raise _engine_error(chunk.error)
                return on_chunk(chunk)
            except Exception as error:
                # xllamacpp drops what a callback raises, so everything is carried out of it by hand.
                failed.append(error)
                return True

        ask = self._server.handle_chat_completions if chat else self._server.handle_completions
        try:
            ask(_encode(request).decode(), take)
        except RuntimeError as error:
            raise EngineError("engine_failed", f"llama.cpp: {error}") from error
        if failed:
            raise failed[0]

    def apply_template(self, messages: list[Json]) -> str:
        """Return the prompt that the model's chat template makes of *messages*, up to the answer."""
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def count(self, prompt: str) -> int:
        """Return how many tokens *prompt* has, the beginning-of-text token included."""
        return len(self._post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"])

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a piece of an answer; what looks like a special token in it is text."""
        body = {"content": text, "add_special": False, "parse_special": False}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def embed(self, request: Json) -> Json:
        """Return llama.cpp's answer to an embeddings request."""
        answer: Json = msgspec.json.decode(self._server.handle_embeddings(_encode(request).decode()))
        if "error" in answer:
            raise _engine_error(msgspec.convert(answer["error"], LlamaError))
        return answer

    def close(self) -> None:
        """Free the model; no request may be running."""
        self._connection.close()
        self._server = None

    def _post(self, path: str, body: Json) -> Json:
        """Ask over loopback, one question at a time: each takes a fraction of a millisecond."""
        with self._asking:
            try:
                status, data = self._exchange(path, _encode(body))
            except (OSError, http.client.HTTPException):
                # llama.cpp closes idle connections; the second try opens a new one.
                self._connection.close()
                try:
                    status, data = self._exchange(path, _encode(body))
                except (OSError, http.client.HTTPException) as error:
                    self._connection.close()
                    raise EngineError("engine_failed", f"llama.cpp does not answer: {error}") from error
        answer: Json = msgspec.json.decode(data)
        if status != _OK:
            raise _engine_error(msgspec.convert(answer.get("error", {}), LlamaError))
        return answer

    def _exchange(self, path: str, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        return response.status, response.read()


def _engine_error(error: LlamaError) -> EngineError:
    if error.type == "exceed_context_size_error":
        return refuse("context_length_exceeded", f"the prompt is too long: {error.message}")
    if 400 <= error.code < 500:
        return refuse("invalid_request", error.message, status=400)
    if error.type == "unavailable_error":
        return EngineError("engine_busy", error.message, fault="capacity", status=503, retry_after_s=1.0)
    log.warning("llama.cpp failed: %s (%s)", error.message, error.type)
    return EngineError("engine_failed", f"llama.cpp: {error.message}", status=error.code)
