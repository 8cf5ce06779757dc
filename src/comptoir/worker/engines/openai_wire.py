"""OpenAI's wire shapes as this worker needs them: requests rewritten, stream events turned into frames.

Pure: no I/O. Only what we must know is decoded; the rest travels as the bytes it came in.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from comptoir.kinds import BadExtra, read_extra
from comptoir.link import COUNT_MAX, USAGE_BYTES_MAX, Frame, Usage
from comptoir.worker.engines.base import EngineError, Finish
from comptoir.worker.retry_after import read_retry_after

ERROR_BODY_MAX = 16 * 1024
"""Most bytes of an upstream error body that are kept."""


class _UpstreamChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: dict[str, Any] | None = None
    text: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"")
    finish_reason: str | None = None


class _UpstreamChunk(msgspec.Struct, gc=False):
    choices: list[_UpstreamChoice] = []
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")
    object: str = ""


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _UpstreamVector(msgspec.Struct):
    embedding: list[float] | str


class _Embeddings(msgspec.Struct):
    data: msgspec.Raw
    usage: msgspec.Raw = msgspec.Raw(b"")


class _ErrorObject(msgspec.Struct):
    message: str | None = None
    detail: Any = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorObject | str | None = None
    message: str | None = None
    detail: Any = None


_decode_chunk = msgspec.json.Decoder(_UpstreamChunk).decode
_encode = msgspec.json.Encoder().encode
_NULL = (b"", b"null")
_BOUNDS = ("max_tokens", "max_completion_tokens")


def upstream_body(
    body: bytes, *, model: str, stream: bool, max_tokens: int = 0, without: Collection[str] = ()
) -> bytes:
    """Return the buyer's *body* with the upstream's model name and, if *stream*, streaming with a usage chunk.

    Where the buyer named no bound, *max_tokens* (> 0, over all choices) becomes one, so that the server stops by itself
    and counts what it did. Every other field is forwarded byte for byte, unknown ones included.

    Args:
        without: fields of `openai_refusals.OURS` that the server refuses: they stay as the buyer sent them, if at all.

    Raises:
        EngineError: (fault buyer) the body is not a JSON object.
    """
    try:
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if stream:
            if "stream_options" not in without:
                options = fields.get("stream_options")
                kept = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None) if options is not None else None
                fields["stream_options"] = {**(kept or {}), "include_usage": True}
            named = "max_tokens" in without or any(bytes(fields.get(name, b"")) not in _NULL for name in _BOUNDS)
            if max_tokens and not named:
                fields["max_tokens"] = max(1, max_tokens // _answers(fields))
    except msgspec.DecodeError as error:
        raise EngineError("bad_request", f"the request is not OpenAI's shape: {error}", fault="buyer") from error
    fields["model"] = model
    if stream:
        fields["stream"] = True
    else:
        fields.pop("stream", None)
    return _encode(fields)


def _answers(fields: dict[str, Any]) -> int:
    """Return how many texts the request asks for: choices times prompts."""
    choices = msgspec.json.decode(fields.get("n", b"null"), type=int | None) or 1
    prompts: Any = msgspec.json.decode(fields.get("prompt", b"null"))
    many = isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)
    return max(1, choices) * (len(prompts) if many else 1)


class AnswerReader:
    """Turns the events of one streamed answer into frames and keeps what `Finish` needs."""

    __slots__ = ("_finish_reason", "_tokens", "_usage", "complete")

    def __init__(self) -> None:
        self.complete = False
        """Whether ``[DONE]`` came."""
        self._tokens = 0
        self._finish_reason = ""
        self._usage: msgspec.Raw | None = None

    def read(self, name: bytes, data: bytes) -> list[Frame]:
        """Return the frames of one event; none for roles, finish reasons of choice 0, and usage.

        Raises:
            EngineError: (fault host) an error event, or something that is no answer chunk.
        """
        if data == b"[DONE]":
            self.complete = True
            return []
        try:
            chunk = _decode_chunk(data)
        except msgspec.DecodeError as error:
            raise EngineError("upstream_protocol", f"the server sent an event that is no chunk: {error}") from error
        if name == b"error" or chunk.object == "error" or bytes(chunk.error) not in _NULL:
            message = error_message(data) or "no reason given"
            raise EngineError("upstream_error", f"the engine failed mid-answer: {message}", body=data[:ERROR_BODY_MAX])
        if bytes(chunk.usage) not in _NULL:
            self._usage = chunk.usage
        frames: list[Frame] = []
        for choice in chunk.choices:
            delta = choice.delta
            # The hot path: nothing but text for choice 0.
            if (
                delta is not None
                and len(delta) == 1
                and not choice.index
                and choice.finish_reason is None
                and bytes(choice.logprobs) in _NULL
            ):
                text = delta.get("content")
                if type(text) is str:
                    if text:
                        self._tokens += 1
                        frames.append(Frame(text))
                    continue
            frame = self._frame(choice)
            if frame is not None:
                frames.append(frame)
        return frames

    @property
    def finished(self) -> bool:
        """Whether choice 0 said why it ended."""
        return bool(self._finish_reason)

    def last(self) -> tuple[Frame | None, Finish]:
        """Return what ends the answer.

        The frame, if any, carries the tokens the deltas did not show: servers may send several tokens in one delta
        or hide some (reasoning, the end token), and the frames' sum is what is paid. Where the server counted fewer
        than the deltas, its count is billed (`Usage.billed`); where it counted nothing, the deltas are.
        """
        usage = read_usage(self._usage)
        if not usage.details:
            usage = Usage(completion_tokens=self._tokens)
        unseen = usage.completion_tokens - self._tokens
        frame = Frame("", unseen) if unseen > 0 else None
        return frame, Finish(self._finish_reason or "stop", usage)

    def _frame(self, choice: _UpstreamChoice) -> Frame | None:
        extra: dict[str, Any] = {}
        text = choice.text or ""
        rest: dict[str, Any] = {}
        for key, value in (choice.delta or {}).items():
            if key == "content" and isinstance(value, str):
                text = value
            elif key != "role" and value is not None and value != []:
                rest[key] = value
        if rest:
            extra["delta"] = rest
        tokens = 1 if text or rest else 0
        if bytes(choice.logprobs) not in _NULL:
            extra["logprobs"] = choice.logprobs
            tokens = max(tokens, _count_logprobs(choice.logprobs))
        if choice.index:
            if choice.finish_reason:
                extra["finish_reason"] = choice.finish_reason
        elif choice.finish_reason:
            self._finish_reason = choice.finish_reason
        if not text and not extra:
            return None
        if choice.index:
            extra["index"] = choice.index
        self._tokens += tokens
        return Frame(text, tokens, _encode(extra) if extra else b"")


def _count_logprobs(raw: msgspec.Raw) -> int:
    """Count the tokens that *raw* has probabilities of (chat: ``content``; completion: ``tokens``)."""
    fields = msgspec.json.decode(raw)
    if not isinstance(fields, dict):
        return 0
    items = fields.get("content") or fields.get("tokens")
    return len(items) if isinstance(items, list) else 0


def read_usage(raw: msgspec.Raw | None) -> Usage:
    """Read a ``usage`` object; all zero when there is none or it is not one."""
    if raw is None or bytes(raw) in _NULL:
        return Usage()
    try:
        counted = msgspec.json.decode(raw, type=_Usage)
    except msgspec.DecodeError:
        # A count of null or text is no count; the frames' own stand.
        return Usage()
    prompt, completion = (min(max(0, count), COUNT_MAX) for count in (counted.prompt_tokens, counted.completion_tokens))
    details = bytes(raw)
    try:
        read_extra(details, dict, bytes_max=USAGE_BYTES_MAX)
    except BadExtra:
        # The counts are what matters; the rest is for the buyer's interest.
        details = _encode(
            {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        )
    return Usage(prompt, completion, details)


def read_embeddings(data: bytes) -> tuple[Frame, Finish]:
    """Turn an embeddings answer into its one frame and its end.

    Raises:
        EngineError: (fault host) it is not an embeddings answer.
    """
    try:
        answer = msgspec.json.decode(data, type=_Embeddings)
        # Only looked at: what is passed on are the bytes as they came.
        msgspec.json.decode(answer.data, type=list[_UpstreamVector])
    except msgspec.DecodeError as error:
        raise EngineError("upstream_protocol", f"the engine's server sent no embeddings: {error}") from error
    usage = read_usage(answer.usage)
    return Frame("", 0, _encode({"data": answer.data})), Finish("stop", usage)


def error_message(body: bytes) -> str:
    """Find the message in an error body of OpenAI, vLLM, Ollama, TGI or FastAPI; empty when there is none."""
    try:
        found = msgspec.json.decode(body, type=_ErrorBody)
    except msgspec.DecodeError:
        return ""
    error = found.error
    inner = error if isinstance(error, str) else (error.message or error.detail) if error is not None else None
    message = inner or found.message or found.detail or ""
    return message if isinstance(message, str) else _encode(message).decode()


def refused(status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
    """Say whose fault an upstream's HTTP *status* (not 200) is, keeping body and Retry-After."""
    message = error_message(body) or f"the engine's server answered HTTP {status}"
    body = body if len(body) <= ERROR_BODY_MAX else b""
    retry_after_s = read_retry_after(headers)
    if status in (400, 413, 422):
        return EngineError("bad_request", message, fault="buyer", status=status, body=body)
    if status in (429, 503):
        return EngineError(
            "engine_busy", message, fault="capacity", status=status, body=body, retry_after_s=retry_after_s
        )
    if status in (401, 403):
        message = f"the engine's server refuses the worker's api key: {message}"
    return EngineError("upstream_error", message, status=status, body=body, retry_after_s=retry_after_s)
