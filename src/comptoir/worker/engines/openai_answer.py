"""Reads the answers of OpenAI-compatible engines, streamed or in one object, and turns them into frames.

A piece that OpenAI itself could have sent takes the short way, and what stands in it travels as the bytes it came in.
Everything else that engines send takes the long one (`AnswerReader._read_loosely`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.kinds import (
    INDEX_MAX,
    TEXT_EXTRA_BYTES_MAX,
    BadExtra,
    TextExtra,
    ToolCallFragments,
    broke_off,
    finish_reason_of,
    read_extra,
)
from comptoir.link import COUNT_MAX, USAGE_BYTES_MAX, Frame, Usage
from comptoir.worker.engines import loose_json
from comptoir.worker.engines.base import EngineError, Finish
from comptoir.worker.engines.openai_wire import ERROR_BODY_MAX, ERROR_CHARS_MAX, error_message

BYTES_PER_TOKEN = 4
"""Bytes of an answer that count as one token, where it came in one object without a count."""

WORD_CHARS_MAX = 64
"""Most characters that are kept of an engine's own word for the end."""

Json = dict[str, Any]


class _StrictChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    index: int = 0
    delta: Json | None = None
    text: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"")
    finish_reason: str | None = None


class _StrictChunk(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    choices: list[_StrictChoice] = []
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")
    object: str = ""
    id: msgspec.Raw = msgspec.Raw(b"")
    created: msgspec.Raw = msgspec.Raw(b"")
    model: msgspec.Raw = msgspec.Raw(b"")
    system_fingerprint: msgspec.Raw = msgspec.Raw(b"")


class _UpstreamVector(msgspec.Struct):
    embedding: list[float] | str


class _Embeddings(msgspec.Struct):
    data: msgspec.Raw
    usage: msgspec.Raw = msgspec.Raw(b"")


_decode_chunk = msgspec.json.Decoder(_StrictChunk).decode
_encode = msgspec.json.Encoder().encode
_NULL = (b"", b"null")
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_OF_CHUNK = frozenset(("choices", "usage", "error", "object", "id", "created", "model"))
_OF_CHOICE = frozenset(("index", "delta", "message", "text", "logprobs", "finish_reason"))
_OF_DELTA = frozenset(("role", "content", "refusal", "tool_calls", "function_call", "audio", "annotations"))
"""OpenAI's own fields, of which its clients do not see whether they are absent, null or empty."""


class _Piece:
    """What one choice of a chunk says, read loosely."""

    __slots__ = ("blank", "delta", "index", "logprobs", "loose", "reason", "rest", "text")

    def __init__(self, choice: Json, *, place: int = 0, alone: bool = True, loose: bool = True) -> None:
        """*loose*: whether its texts may have halves of characters."""
        self.loose = loose
        index = choice.get("index")
        if type(index) is not int or not 0 <= index <= INDEX_MAX:
            index = 0 if alone else min(place, INDEX_MAX)
        self.index = index
        said = choice.get("delta") or choice.get("message")
        said = said if isinstance(said, dict) else {}
        text = choice.get("text")
        self.text = text if isinstance(text, str) else ""
        self.delta: Json = {}
        self.blank: Json = {}
        for name, value in said.items():
            if name == "content" and isinstance(value, str):
                self.text = value
            elif name == "role":
                continue
            elif value not in _NOTHING:
                self.delta[name] = value
            elif name not in _OF_DELTA:
                self.blank[name] = value
        logprobs = choice.get("logprobs")
        self.logprobs = _encode(loose_json.cleaned(logprobs)) if isinstance(logprobs, dict) else b""
        reason = choice.get("finish_reason")
        self.reason = reason if isinstance(reason, str) else "" if reason is None or reason is False else str(reason)
        rest = {name: value for name, value in choice.items() if name not in _OF_CHOICE and value is not None}
        self.rest: Json = loose_json.cleaned(rest) if rest else rest


class _ToldFields:
    """Fields that are the same beside piece after piece: told with a frame when they change, and not with each."""

    __slots__ = ("told", "untold")

    def __init__(self) -> None:
        self.told: Json = {}
        self.untold: Json = {}
        """Those of pieces that made no frame: they go with the next."""

    def keep(self, fields: Json) -> None:
        """Note the fields of a piece without a frame."""
        if any(self.told.get(name) != value for name, value in fields.items()):
            self.untold |= fields

    def tell(self, extra: Json, name: str, fields: Json) -> None:
        """Put the fields of a piece into its frame's *extra*, if they differ from those of the one before."""
        fields, self.untold = self.untold | fields, {}
        if fields != self.told:
            extra[name] = self.told = fields


class _ChoiceState:
    """What is kept of one choice from piece to piece."""

    __slots__ = ("blank", "called", "calls", "ended", "halves", "rest")

    def __init__(self) -> None:
        self.calls = ToolCallFragments(at_origin=True)
        self.called = False
        self.ended = False
        self.rest, self.blank = _ToldFields(), _ToldFields()
        self.halves: dict[tuple[str | int, ...], str] = {}
        """First halves of surrogate pairs that wait for the second, by their place in the delta."""

    @property
    def bare(self) -> bool:
        """Whether a text with nothing beside it says the same as the piece before."""
        return not (self.halves or self.rest.told or self.rest.untold or self.blank.told or self.blank.untold)


class AnswerReader:
    """Turns the events of one streamed answer into frames and keeps what `Finish` needs."""

    __slots__ = (
        "_bare",
        "_beside",
        "_choices",
        "_fingerprint",
        "_finish_reason",
        "_frames",
        "_same",
        "_tokens",
        "_usage",
        "_whole",
        "complete",
    )

    def __init__(self, after: Sequence[Frame] = ()) -> None:
        """*after* are the frames that another host delivered before."""
        self.complete = False
        """Whether ``[DONE]`` came, or the answer in one object."""
        self._tokens = 0
        self._frames = 0
        self._finish_reason = ""
        self._usage: bytes = b""
        self._beside = _ToldFields()
        self._choices: dict[int, _ChoiceState] = {}
        self._fingerprint = b""
        self._same = True
        """Whether a chunk without further fields, but for the fingerprint, says the same as the one before."""
        self._bare = True
        """Whether a text of choice 0 with nothing beside it says the same as the one before."""
        self._whole = False
        for frame in after:
            if frame.extra:
                self._told_before(msgspec.json.decode(frame.extra))

    def read(self, name: bytes, data: bytes) -> list[Frame]:
        """Return the frames of one event; none for roles, finish reasons of choice 0, and usage.

        Raises:
            EngineError: (fault host) an error event, an end by which the engine gave up, or something that is no
                answer chunk.
        """
        if self.complete:
            return []
        if data[:6] == b"[DONE]":
            self.complete = True
            return []
        if name or not self._same:
            return self._read_loosely(name, data)
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._read_loosely(name, data)
        fingerprint = bytes(chunk.system_fingerprint)
        other = fingerprint != self._fingerprint and (self._fingerprint or fingerprint != b"null")
        if other or chunk.object == "error" or bytes(chunk.error) not in _NULL:
            return self._read_loosely(name, data)
        if bytes(chunk.usage) not in _NULL:
            self._usage = bytes(chunk.usage)
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
                and self._bare
            ):
                text = delta.get("content")
                if type(text) is str:
                    if text:
                        self._tokens += 1
                        frames.append(Frame(text))
                    continue
            frame = self._frame(_piece_of(choice), self._beside.told, {})
            if frame is not None:
                frames.append(frame)
            self._look_ahead()
        self._frames += len(frames)
        return frames

    def read_whole(self, data: bytes) -> list[Frame]:
        """Return the frames of an answer that came in one JSON object, although a stream was asked for.

        Raises:
            EngineError: (fault host) it is an error, or no answer.
        """
        self._whole = True
        frames = self._read_loosely(b"", data)
        if not self._choices:
            raise EngineError("upstream_protocol", "the engine's server answered with an object that is no answer")
        self.complete = True
        return frames

    @property
    def finished(self) -> bool:
        """Whether choice 0 and every other that began said why they ended."""
        return bool(self._finish_reason) and all(state.ended for state in self._choices.values())

    @property
    def begun(self) -> bool:
        """Whether anything of an answer came."""
        return bool(self._frames or self._choices)

    def last(self) -> tuple[list[Frame], Finish]:
        """Return what ends the answer.

        The last of the frames, if any, carries the tokens the deltas did not show: servers may send several tokens in
        one delta or hide some (reasoning, the end token), and the frames' sum is what is paid. Where the server counted
        fewer than the deltas, its count is billed (`Usage.billed`); where it counted nothing, the deltas are.
        """
        frames = [frame for index in sorted(self._choices) for frame in self._left_of(index)]
        if self._beside.untold and (self._frames or frames):
            extra: Json = {}
            self._beside.tell(extra, "chunk", {})
            if told := _passable(extra):
                frames.append(Frame("", 0, told))
        usage = read_usage(self._usage, delivered=self._tokens)
        unseen = usage.completion_tokens - self._tokens
        if unseen > 0:
            frames.append(Frame("", unseen))
        first = self._choices.get(0)
        reason = self._finish_reason or finish_reason_of("", called=first is not None and first.called)
        return frames, Finish(reason, usage)

    def _told_before(self, extra: Json) -> None:
        """Note what a frame of another host told, which holds until it is told anew."""
        state = self._choices.setdefault(0, _ChoiceState())
        for name, beside in (("chunk", self._beside), ("choice", state.rest), ("blank", state.blank)):
            told = extra.get(name)
            beside.told = told if isinstance(told, dict) else beside.told
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Note by which way the next event may go."""
        beside, first = self._beside, self._choices.get(0)
        self._bare = first is None or first.bare
        self._same = not beside.untold and beside.told.keys() <= {"system_fingerprint"}
        self._fingerprint = _encode(beside.told["system_fingerprint"]) if self._same and beside.told else b""

    # -- the long way --------------------------------------------------------------------------------------------

    def _read_loosely(self, name: bytes, data: bytes) -> list[Frame]:
        if not data.strip():
            return []
        try:
            chunk = loose_json.loads(data)
        except loose_json.NotJson as error:
            if name == b"error":
                raise _failed(data, data[:ERROR_CHARS_MAX].decode("utf-8", "replace")) from error
            if b"\n" in data:
                # Events that no blank line parts.
                return [frame for line in data.split(b"\n") for frame in self.read(name, line)]
            raise EngineError("upstream_protocol", f"the server sent an event that is no chunk: {error}") from error
        if not isinstance(chunk, dict):
            raise EngineError("upstream_protocol", "the server sent an event that is no chunk: it is no object")
        if name == b"error" or chunk.get("object") == "error" or chunk.get("error") not in (*_NOTHING, False):
            raise _failed(data, error_message(data))
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = _encode(loose_json.cleaned(usage))
        listed = chunk.get("choices")
        if not isinstance(listed, list):
            return []
        fields = {name: value for name, value in chunk.items() if name not in _OF_CHUNK and value is not None}
        fields = loose_json.cleaned(fields)
        choices = [choice for choice in listed if isinstance(choice, dict)]
        frames: list[Frame] = []
        for place, choice in enumerate(choices):
            piece = _Piece(choice, place=place, alone=len(choices) == 1)
            frame = self._frame(piece, fields, piece.rest)
            if frame is not None:
                frames.append(frame)
        if not frames:
            self._beside.keep(fields)
        self._frames += len(frames)
        self._look_ahead()
        return frames

    def _frame(self, piece: _Piece, fields: Json, rest: Json) -> Frame | None:
        """Return the frame of one choice's piece; *fields* are those of its chunk, *rest* those beside its delta."""
        state = self._choices.get(piece.index)
        if state is None:
            state = self._choices[piece.index] = _ChoiceState()
        if piece.reason and broke_off(piece.reason):
            word = loose_json.whole_characters(piece.reason[:WORD_CHARS_MAX])
            raise EngineError("upstream_error", f"the engine gave up mid-answer: {word!r}")
        delta, text = piece.delta, piece.text
        if "tool_calls" in delta:
            delta["tool_calls"] = state.calls.put_right(delta["tool_calls"])
            state.called = True
        if state.halves or piece.loose:
            text, delta = _joined(state, text, delta, ends=bool(piece.reason) or self._whole)
        extra: Json = {"delta": delta} if delta else {}
        tokens = 1 if text or delta else 0
        if self._whole and not self._usage and tokens:
            size = len(text.encode()) + (len(_encode(delta)) if delta else 0)
            tokens = max(1, size // BYTES_PER_TOKEN)
        if piece.logprobs:
            extra["logprobs"] = msgspec.Raw(piece.logprobs)
            tokens = max(tokens, _count_logprobs(piece.logprobs))
        if piece.reason and not state.ended:
            state.ended = True
            reason = finish_reason_of(piece.reason, called=state.called)
            if piece.index:
                extra["finish_reason"] = reason
            else:
                self._finish_reason = reason
        if not text and not extra:
            state.rest.keep(rest)
            state.blank.keep(piece.blank)
            return None
        if piece.index:
            extra["index"] = piece.index
        plain = dict(extra)
        self._beside.tell(extra, "chunk", fields)
        state.rest.tell(extra, "choice", rest)
        if text or delta:
            state.blank.tell(extra, "blank", piece.blank)
        self._tokens += tokens
        return Frame(text, tokens, _passable(extra) or _passable(plain) or (_encode(plain) if plain else b""))

    def _left_of(self, index: int) -> list[Frame]:
        """Return what was kept of a choice for its next piece, which does not come."""
        state = self._choices[index]
        text, delta = _joined(state, "", {}, ends=True)
        extra: Json = {"delta": delta} if delta else {}
        if state.rest.untold and (self._frames or text or delta):
            state.rest.tell(extra, "choice", {})
        if state.blank.untold and self._frames:
            state.blank.tell(extra, "blank", {})
        if not text and not extra:
            return []
        if index:
            extra["index"] = index
        return [Frame(text, 0, _passable(extra))]


def _piece_of(choice: _StrictChoice) -> _Piece:
    """Return a choice that was read strictly; its probabilities stay the bytes they came in."""
    said: Json = {"index": choice.index, "delta": choice.delta, "text": choice.text}
    said["finish_reason"] = choice.finish_reason
    piece = _Piece(said, loose=False)
    if bytes(choice.logprobs) not in _NULL:
        piece.logprobs = _sound(bytes(choice.logprobs))
    return piece


def _sound(raw: bytes) -> bytes:
    """Return an object as it is if every parser reads it, else as it was meant; empty if it is none."""
    try:
        read_extra(raw, dict, bytes_max=TEXT_EXTRA_BYTES_MAX)
    except BadExtra:
        value = loose_json.loads(raw)
        return _encode(loose_json.cleaned(value)) if isinstance(value, dict) else b""
    return raw


def _passable(extra: Json) -> bytes:
    """Return *extra* as bytes, empty if the coordinator would not take it: it is too long or too deep."""
    if not extra:
        return b""
    encoded = _encode(extra)
    try:
        read_extra(encoded, TextExtra, bytes_max=TEXT_EXTRA_BYTES_MAX)
    except BadExtra:
        return b""
    return encoded


def _joined(state: _ChoiceState, text: str, delta: Json, *, ends: bool) -> tuple[str, Json]:
    """Return text and delta in whole characters: halves are kept for the next piece, or U+FFFD if there is none."""
    joiner = _Joiner(state.halves, ends=ends)
    text = joiner.text(text, ("content",))
    delta = joiner.value(delta, ("delta",))
    if ends and state.halves:
        for place in list(state.halves):
            half = loose_json.whole_characters(state.halves.pop(place))
            if place == ("content",):
                text += half
            else:
                _put(delta, place[1:], half)
    return text, delta


class _Joiner:
    """Joins the texts of one piece with the halves that the one before ended with, by their places."""

    def __init__(self, halves: dict[tuple[str | int, ...], str], *, ends: bool) -> None:
        self._halves = halves
        self._ends = ends

    def text(self, text: str, place: tuple[str | int, ...]) -> str:
        """Return *text* at *place* in whole characters."""
        if text and place in self._halves:
            text = self._halves.pop(place) + text
        if not self._ends and text and "\ud800" <= text[-1] <= "\udbff":
            self._halves[place] = text[-1]
            text = text[:-1]
        return loose_json.whole_characters(text)

    def value(self, value: Any, place: tuple[str | int, ...]) -> Any:
        """Return decoded JSON at *place* with whole characters in all its texts."""
        if isinstance(value, str):
            return self.text(value, place)
        if isinstance(value, dict):
            return {loose_json.whole_characters(name): self.value(one, (*place, name)) for name, one in value.items()}
        if isinstance(value, list):
            return [self.value(one, (*place, _number(one, at))) for at, one in enumerate(value)]
        return value


def _number(item: Any, at: int) -> int:
    index = item.get("index") if isinstance(item, dict) else None
    return index if type(index) is int else at


def _put(into: Json, place: tuple[str | int, ...], text: str) -> None:
    """Append *text* to what stands at *place* in a delta, making the objects and lists on the way."""
    at: Any = into
    for step, after in itertools.pairwise(place):
        if isinstance(step, int):
            found = next((item for number, item in enumerate(at) if _number(item, number) == step), None)
            if found is None:
                at.append(found := {"index": step})
            at = found
        else:
            at = at.setdefault(step, [] if isinstance(after, int) else {})
        if not isinstance(at, dict | list):
            return
    end = place[-1]
    if isinstance(at, dict) and isinstance(end, str) and isinstance(at.get(end, ""), str):
        at[end] = at.get(end, "") + text


def _failed(data: bytes, words: str) -> EngineError:
    message = words or "no reason given"
    body = data if len(data) <= ERROR_BODY_MAX else b""
    return EngineError("upstream_error", f"the engine failed mid-answer: {message}", body=body)


def _count_logprobs(raw: bytes) -> int:
    """Count the tokens that *raw* has probabilities of (chat: ``content``; completion: ``tokens``)."""
    fields = msgspec.json.decode(raw)
    if not isinstance(fields, dict):
        return 0
    items = fields.get("content") or fields.get("tokens")
    return len(items) if isinstance(items, list) else 0


def read_usage(raw: bytes, *, delivered: int) -> Usage:
    """Read a ``usage`` object; a count that can't be read is that of the tokens *delivered*, of the prompt zero."""
    counted: Any = None
    if raw not in _NULL:
        try:
            counted = loose_json.cleaned(loose_json.loads(raw))
        except loose_json.NotJson:
            counted = None
    if not isinstance(counted, dict):
        return Usage(completion_tokens=delivered)
    prompt, completion = _count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens"))
    if prompt is None and completion is None:
        return Usage(completion_tokens=delivered)
    prompt, completion = prompt or 0, delivered if completion is None else completion
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    details = bytes(raw)
    try:
        read_extra(details, dict, bytes_max=USAGE_BYTES_MAX)
    except BadExtra:
        details = _encode(counted | counts)
        try:
            read_extra(details, dict, bytes_max=USAGE_BYTES_MAX)
        except BadExtra:
            # The counts are what matters; the rest is for the buyer's interest.
            details = _encode(counts)
    return Usage(prompt, completion, details)


def _count(value: Any) -> int | None:
    """Return a count of tokens; None: *value* is none. A whole number may come as a float."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= COUNT_MAX else None


def read_embeddings(data: bytes) -> tuple[Frame, Finish]:
    """Turn an embeddings answer into its one frame and its end.

    Raises:
        EngineError: (fault host) it is not an embeddings answer.
    """
    try:
        answer = _embeddings(data)
        # Only looked at: what is passed on are the bytes as they came.
        msgspec.json.decode(answer.data, type=list[_UpstreamVector])
    except (msgspec.DecodeError, UnicodeDecodeError, loose_json.NotJson) as error:
        raise EngineError("upstream_protocol", f"the engine's server sent no embeddings: {error}") from error
    return Frame("", 0, _encode({"data": answer.data})), Finish("stop", read_usage(bytes(answer.usage), delivered=0))


def _embeddings(data: bytes) -> _Embeddings:
    try:
        return msgspec.json.decode(data, type=_Embeddings)
    except msgspec.DecodeError:
        return msgspec.json.decode(_encode(loose_json.cleaned(loose_json.loads(data))), type=_Embeddings)
