"""Frames as OpenAI's stream chunks and bodies. Pure, and on the hot path: text is escaped and framed in batches."""

from typing import Any

import msgspec

from comptoir.dialects.openai.choices import ChoiceBuilder
from comptoir.jobs import LiveJob
from comptoir.kinds import ToolCallFragments, finish_reason_of
from comptoir.kit.money import usd_text
from comptoir.kit.sse import DONE, one_line
from comptoir.link import Frame

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


Fields = dict[str, msgspec.Raw]

BESIDE_BYTES_MAX = 4 * 1024
"""Most bytes of an engine's further fields that are repeated with every chunk; longer ones are shown once, or a host
could make a buyer's stream a thousand times as long as what it sends."""

_OF_CHUNK = frozenset(("id", "object", "created", "model", "choices", "usage", "error"))
_OF_CHOICE = frozenset(("index", "delta", "message", "text", "logprobs", "finish_reason"))
_OF_DELTA = frozenset(("role", "content", "refusal", "tool_calls", "function_call"))


class OpenAIExtra(msgspec.Struct):
    """The fields of `Frame.extra` that the coordinator reads."""

    delta: Fields | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    index: int = 0
    finish_reason: str | None = None
    chunk: Fields | None = None
    choice: Fields | None = None
    blank: Fields | None = None


_decode_extra = msgspec.json.Decoder(OpenAIExtra).decode
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_extra(extra: bytes) -> OpenAIExtra:
    """Read what stands beside a frame's text; what is passed on of it unread fits one line of an event."""
    return _decode_extra(one_line(extra))


class FieldsBeside:
    """An engine's further fields, as they stand in this chunk and, if they are short, in those that follow."""

    __slots__ = ("_kept", "_own", "now")

    def __init__(self, own: frozenset[str]) -> None:
        """*own* are the names that we write ourselves."""
        self._own = own
        self._kept = self.now = b""

    def tell(self, fields: Fields | None) -> bool:
        """Take a frame's *fields*, None: the same as before. Return whether `now` has changed."""
        before = self.now
        if fields is None:
            self.now = self._kept
        else:
            said = {name: value for name, value in fields.items() if name not in self._own}
            self.now = b"," + _encode(said)[1:-1] if said else b""
            self._kept = self.now if len(self.now) <= BESIDE_BYTES_MAX else b""
        return self.now != before


class WrittenChoice:
    """What is kept of one choice while its chunks are written."""

    __slots__ = ("blank", "calls", "called", "rest")

    def __init__(self) -> None:
        self.rest, self.blank = FieldsBeside(_OF_CHOICE), FieldsBeside(_OF_DELTA)
        self.calls = ToolCallFragments()
        self.called = False


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
        "_beside",
        "_between",
        "_choices",
        "_end",
        "_finished",
        "_form",
        "_head",
        "_include_usage",
        "_n",
        "_opened",
        "_plain",
        "_tail",
    )

    def __init__(self, form: Form, job: LiveJob, *, choices: int, include_usage: bool) -> None:
        """*choices* is the number requested: each gets an end, even if it stays empty."""
        self._form = form
        self._head = b"data: " + form.head(job, form.chunk_object)
        self._include_usage = include_usage
        # If there is a usage chunk at the end, every other chunk has a null usage.
        self._end = b'],"usage":null' if include_usage else b"]"
        self._before = self._head + b'{"index":0,' + form.text_before
        self._n = choices
        self._opened: set[int] = set()
        self._finished: set[int] = set()
        self._beside = FieldsBeside(_OF_CHUNK)
        self._choices: dict[int, WrittenChoice] = {}
        self._set_up()

    def frames(self, batch: list[Frame]) -> bytes:
        """Return the chunks of *batch*, one for each frame with content."""
        for frame in batch:
            if frame.extra:
                return b"".join([self._chunk(frame) for frame in batch])
        if not self._plain:
            self._set_up()
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
        for index in sorted(self._opened.union(range(self._n))):
            if index not in self._finished:
                choice = self._choices.get(index)
                reason = _encode(finish_reason_of(job.finish_reason, called=choice is not None and choice.called))
                pieces += [self._opening(index, has_text=True), self._finish(index, reason)]
        if self._include_usage:
            pieces += [self._head, b'],"usage":', usage_json(job), self._beside.now, b"}\n\n"]
        pieces.append(DONE)
        return b"".join(pieces)

    def _set_up(self) -> None:
        """Prepare the bytes around a plain text of choice 0, with an engine's fields beside it."""
        first = self._choices.get(0)
        self._beside.tell(None)
        rest = blank = b""
        if first is not None:
            first.rest.tell(None)
            first.blank.tell(None)
            rest, blank = first.rest.now, first.blank.now
        self._tail = b"%b%b}\n\n" % (self._end, self._beside.now)
        after = blank + self._form.text_after if self._form.has_roles else b""
        self._after = b'%b,"logprobs":null,"finish_reason":null%b}%b' % (after, rest, self._tail)
        self._between = self._after + self._before
        self._plain = True

    def _choice(self, index: int) -> WrittenChoice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = WrittenChoice()
        return choice

    def _tell(self, choice: WrittenChoice, extra: OpenAIExtra) -> None:
        """Note what stands beside this frame's text."""
        changed = self._beside.tell(extra.chunk)
        changed = choice.rest.tell(extra.choice) or changed
        changed = choice.blank.tell(extra.blank) or changed
        if changed:
            self._tail = b"%b%b}\n\n" % (self._end, self._beside.now)
            self._plain = False

    def _chunk(self, frame: Frame) -> bytes:
        extra = read_extra(frame.extra) if frame.extra else OpenAIExtra()
        index, delta = extra.index, extra.delta or {}
        choice = self._choice(index)
        self._tell(choice, extra)
        logprobs = bytes(extra.logprobs)
        said = frame.text or delta or logprobs != b"null"
        if not said and extra.finish_reason is None:
            # Fields of the end, or tokens that are not shown. An opening without text would hide a call that follows.
            return b""
        opening = self._opening(index, has_text=bool(frame.text) or not delta)
        body = b""
        if said:
            content, later = self._content(choice, frame.text, delta)
            body = b'%b{"index":%d,%b,"logprobs":%b,"finish_reason":null%b}%b' % (
                self._head,
                index,
                content,
                logprobs,
                choice.rest.now,
                self._tail,
            )
            if later:
                body += self._calls(index, later)
        if extra.finish_reason is None or index in self._finished:
            return opening + body
        self._finished.add(index)
        return (
            opening + body + self._finish(index, _encode(finish_reason_of(extra.finish_reason, called=choice.called)))
        )

    def _content(self, choice: WrittenChoice, text: str, delta: Fields) -> tuple[bytes, list[Any]]:
        """Return what a chunk says, and further calls of the same delta: some clients read one a chunk."""
        if not self._form.has_roles:
            return b'"text":' + _encode(text), []
        later: list[Any] = []
        fields: dict[str, Any] = {"content": text} if text else {}
        fields.update(delta)
        calls = delta.get("tool_calls")
        if calls is not None:
            fields["tool_calls"] = said_calls = choice.calls.put_right(msgspec.json.decode(calls))
            choice.called = True
            if isinstance(said_calls, list):
                fields["tool_calls"], later = said_calls[:1], said_calls[1:]
        said = _encode(fields)[:-1]
        blank = choice.blank.now
        return b'"delta":' + said + (blank if len(said) > 1 else blank[1:]) + b"}", later

    def _calls(self, index: int, calls: list[Any]) -> bytes:
        """Return a chunk for each of *calls*."""
        chunk = b'%b{"index":%d,"delta":{"tool_calls":[%b]},"logprobs":null,"finish_reason":null}%b'
        return b"".join([chunk % (self._head, index, _encode(call), self._tail) for call in calls])

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
        choice = self._choices.get(index)
        missing = self._calls(index, choice.calls.missing()) if choice is not None and choice.called else b""
        return missing + b'%b{"index":%d,%b,"logprobs":null,"finish_reason":%b%b}%b' % (
            self._head,
            index,
            nothing,
            reason,
            choice.rest.now if choice is not None else b"",
            self._tail,
        )


def error_event(found: dict[str, Any]) -> bytes:
    """Return the error event, which an SDK raises, and the end of the stream."""
    return b"data: " + _encode({"error": found}) + b"\n\n" + DONE


def whole(form: Form, job: LiveJob, *, choices: int) -> bytes:
    """Return the body of a completed answer that was not streamed."""
    if choices == 1 and not job.has_extras:
        text = _encode("".join([frame.text for frame in job.frames]))
        said = b'"message":{"role":"assistant","content":%b,"refusal":null}' if form.has_roles else b'"text":%b'
        listed = b'{"index":0,%b,"logprobs":null,"finish_reason":%b}' % (
            said % text,
            _encode(finish_reason_of(job.finish_reason)),
        )
        beside = b""
    else:
        gathered, fields = _gather(form, job, choices=choices)
        listed = b",".join(gathered)
        told = FieldsBeside(_OF_CHUNK)
        told.tell(fields)
        beside = told.now
    return b'%b%b],"usage":%b%b}' % (form.head(job, form.whole_object), listed, usage_json(job), beside)


def _gather(form: Form, job: LiveJob, *, choices: int) -> tuple[list[bytes], Fields]:
    """Return the choices of an answer, and the fields beside them."""
    made = {index: ChoiceBuilder() for index in range(choices)}
    beside: Fields = {}
    for frame in job.frames:
        extra = read_extra(frame.extra) if frame.extra else OpenAIExtra()
        beside |= extra.chunk or {}
        choice = made.setdefault(extra.index, ChoiceBuilder())
        choice.note(rest=_without(extra.choice, _OF_CHOICE), blank=_without(extra.blank, _OF_DELTA))
        choice.add(frame.text, delta=extra.delta, logprobs=extra.logprobs, finish_reason=extra.finish_reason)
    listed = [
        _encode(
            choice.chat(index, job.finish_reason) if form.has_roles else choice.completion(index, job.finish_reason)
        )
        for index, choice in sorted(made.items())
    ]
    return listed, beside


def _without(fields: Fields | None, own: frozenset[str]) -> dict[str, Any] | None:
    if fields is None:
        return None
    return {name: msgspec.json.decode(raw) for name, raw in fields.items() if name not in own}


def usage_json(job: LiveJob) -> bytes:
    """Return the usage object of a settled *job*: what is billed, its cost in dollars, and the engine's details."""
    prompt, completion = job.usage.prompt_tokens, job.usage.completion_tokens
    counts = b'"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d' % (prompt, completion, prompt + completion)
    return usage_object(job, counts)


def usage_object(job: LiveJob, counts: bytes) -> bytes:
    """Return the usage object with these *counts*; where an engine's details have a field of ours, ours counts."""
    ours = b'{%b,"cost":%b}' % (counts, usd_text(job.cost_uusd).encode())
    if not job.usage.details:
        return ours
    fields = _raw_fields(ours)
    for name, value in _raw_fields(one_line(job.usage.details)).items():
        fields.setdefault(name, value)
    return _encode(fields)
