"""Frames as OpenAI's stream chunks and bodies. Pure, and on the hot path: text is escaped and framed in batches."""

from typing import Any

import msgspec

from comptoir.dialects.openai.choices import ChoiceBuilder, with_indices
from comptoir.jobs import LiveJob
from comptoir.kit.money import to_usd
from comptoir.kit.sse import DONE, one_line
from comptoir.link import Frame

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class OpenAIExtra(msgspec.Struct):
    """The fields of `Frame.extra` that the coordinator reads."""

    delta: dict[str, msgspec.Raw] | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    index: int = 0
    finish_reason: str | None = None


_decode_extra = msgspec.json.Decoder(OpenAIExtra).decode
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_extra(extra: bytes) -> OpenAIExtra:
    """Read what stands beside a frame's text; what is passed on of it unread fits one line of an event."""
    return _decode_extra(one_line(extra))


class Form:
    """The format of one kind of answer. There are two: `CHAT` and `COMPLETION`."""

    __slots__ = ("chunk_object", "has_roles", "id_prefix", "text_after", "text_before", "whole_object")

    def __init__(
        self,
        *,
        id_prefix: bytes,
        chunk_object: bytes,
        whole_object: bytes,
        text_before: bytes,
        text_after: bytes,
        has_roles: bool,
    ) -> None:
        self.id_prefix = id_prefix
        self.chunk_object = chunk_object
        self.whole_object = whole_object
        self.text_before = text_before
        """The bytes between ``"index":0,`` and the text of a chunk."""
        self.text_after = text_after
        self.has_roles = has_roles

    def head(self, job: LiveJob, object_name: bytes) -> bytes:
        """Return the common beginning of every chunk of an answer, up to its choices."""
        return b'{"id":"%b%b","object":"%b","created":%d,"model":%b,"choices":[' % (
            self.id_prefix,
            job.id.hex().encode(),
            object_name,
            job.created_ms // 1000,
            _encode(job.model),
        )


CHAT = Form(
    id_prefix=b"chatcmpl-",
    chunk_object=b"chat.completion.chunk",
    whole_object=b"chat.completion",
    text_before=b'"delta":{"content":',
    text_after=b"}",
    has_roles=True,
)
COMPLETION = Form(
    id_prefix=b"cmpl-",
    chunk_object=b"text_completion",
    whole_object=b"text_completion",
    text_before=b'"text":',
    text_after=b"",
    has_roles=False,
)


class StreamWriter:
    """Writes the chunks of one streamed answer."""

    __slots__ = (
        "_after",
        "_before",
        "_between",
        "_finished",
        "_form",
        "_head",
        "_include_usage",
        "_n",
        "_opened",
        "_tail",
    )

    def __init__(self, form: Form, job: LiveJob, *, choices: int, include_usage: bool) -> None:
        """*choices* is the number requested: each gets an end, even if it stays empty."""
        self._form = form
        self._head = b"data: " + form.head(job, form.chunk_object)
        self._include_usage = include_usage
        # If there is a usage chunk at the end, every other chunk has a null usage.
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._before = self._head + b'{"index":0,' + form.text_before
        self._after = form.text_after + b',"logprobs":null,"finish_reason":null}' + self._tail
        self._between = self._after + self._before
        self._n = choices
        self._opened: set[int] = set()
        self._finished: set[int] = set()

    def frames(self, batch: list[Frame]) -> bytes:
        """Return the chunks of *batch*, one for each frame with content."""
        for frame in batch:
            if frame.extra:
                return b"".join([self._chunk(frame) for frame in batch])
        texts = [frame.text for frame in batch if frame.text]
        if not texts:
            return b""
        # JSON strings contain no raw line breaks, so each line break can be replaced by the bytes between two chunks.
        lines = _encode_lines(texts)[:-1].replace(b"\n", self._between)
        body = self._before + lines + self._after
        return self._opening(0, has_text=True) + body if 0 not in self._opened else body

    def end(self, job: LiveJob) -> bytes:
        """Return the end of a completed answer: finish reasons, the usage chunk if requested, ``[DONE]``."""
        pieces = []
        reason = _encode(job.finish_reason or "stop")
        for index in sorted(self._opened.union(range(self._n))):
            if index not in self._finished:
                pieces += [self._opening(index, has_text=True), self._finish(index, reason)]
        if self._include_usage:
            pieces += [self._head, b'],"usage":', usage_json(job), b"}\n\n"]
        pieces.append(DONE)
        return b"".join(pieces)

    def _chunk(self, frame: Frame) -> bytes:
        extra = read_extra(frame.extra) if frame.extra else OpenAIExtra()
        index, delta = extra.index, extra.delta or {}
        opening = self._opening(index, has_text=bool(frame.text) or not delta)
        logprobs = bytes(extra.logprobs)
        said = frame.text or delta or logprobs != b"null"
        body = b""
        if said:
            body = b'%b{"index":%d,%b,"logprobs":%b,"finish_reason":null}%b' % (
                self._head,
                index,
                self._content(frame.text, delta),
                logprobs,
                self._tail,
            )
        if extra.finish_reason is None:
            return opening + body if said else b""
        self._finished.add(index)
        return opening + body + self._finish(index, _encode(extra.finish_reason))

    def _content(self, text: str, delta: dict[str, msgspec.Raw]) -> bytes:
        if not self._form.has_roles:
            return b'"text":' + _encode(text)
        fields: dict[str, Any] = {"content": text} if text else {}
        fields.update(delta)
        calls = delta.get("tool_calls")
        if calls is not None:
            fields["tool_calls"] = with_indices(calls)
        return b'"delta":' + _encode(fields)

    def _opening(self, index: int, *, has_text: bool) -> bytes:
        """Return the chunk with the role, with which a choice begins; empty if it has begun, or has no roles."""
        if index in self._opened:
            return b""
        self._opened.add(index)
        if not self._form.has_roles:
            return b""
        return b'%b{"index":%d,"delta":{"role":"assistant","content":%b},"logprobs":null,"finish_reason":null}%b' % (
            self._head,
            index,
            b'""' if has_text else b"null",
            self._tail,
        )

    def _finish(self, index: int, reason: bytes) -> bytes:
        nothing = b'"delta":{}' if self._form.has_roles else b'"text":""'
        return b'%b{"index":%d,%b,"logprobs":null,"finish_reason":%b}%b' % (
            self._head,
            index,
            nothing,
            reason,
            self._tail,
        )


def error_event(found: dict[str, Any]) -> bytes:
    """Return the error event, which an SDK raises, and the end of the stream."""
    return b"data: " + _encode({"error": found}) + b"\n\n" + DONE


def whole(form: Form, job: LiveJob, *, choices: int) -> bytes:
    """Return the body of a completed answer that was not streamed."""
    frames = job.frames
    if choices == 1 and not any(frame.extra for frame in frames):
        text = _encode("".join([frame.text for frame in frames]))
        said = b'"message":{"role":"assistant","content":%b,"refusal":null}' if form.has_roles else b'"text":%b'
        listed = b'{"index":0,%b,"logprobs":null,"finish_reason":%b}' % (
            said % text,
            _encode(job.finish_reason or "stop"),
        )
    else:
        listed = b",".join(_gather(form, job, choices=choices))
    return b'%b%b],"usage":%b}' % (form.head(job, form.whole_object), listed, usage_json(job))


def _gather(form: Form, job: LiveJob, *, choices: int) -> list[bytes]:
    made = {index: ChoiceBuilder() for index in range(choices)}
    for frame in job.frames:
        extra = read_extra(frame.extra) if frame.extra else OpenAIExtra()
        choice = made.setdefault(extra.index, ChoiceBuilder())
        choice.add(frame.text, delta=extra.delta, logprobs=extra.logprobs, finish_reason=extra.finish_reason)
    default = job.finish_reason or "stop"
    return [
        _encode(choice.chat(index, default) if form.has_roles else choice.completion(index, default))
        for index, choice in sorted(made.items())
    ]


def usage_json(job: LiveJob) -> bytes:
    """Return the usage object of a settled *job*: what is billed, its cost in dollars, and the engine's details."""
    prompt, completion = job.usage.prompt_tokens, job.usage.completion_tokens
    counts = b'"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d' % (prompt, completion, prompt + completion)
    return usage_object(job, counts)


def usage_object(job: LiveJob, counts: bytes) -> bytes:
    """Return the usage object with these *counts*; where an engine's details have a field of ours, ours counts."""
    ours = b'{%b,"cost":%b}' % (counts, format(to_usd(job.cost_uusd), "f").encode())
    if not job.usage.details:
        return ours
    fields = _raw_fields(ours)
    for name, value in _raw_fields(one_line(job.usage.details)).items():
        fields.setdefault(name, value)
    return _encode(fields)
