"""The published Infrintia shape for push: a text, a length and a temperature; pieces come back in several formats.

Accepted are ``200`` with an event stream (``{"token": …}`` or OpenAI chunks, then ``[DONE]``), and ``200`` with JSON.
"""

import aiohttp
import msgspec

from comptoir.hosts import INFRINTIA
from comptoir.kinds.tokens.text import frames_of, text_of, whole_answer
from comptoir.kit.ids import public
from comptoir.kit.numbers import Int64
from comptoir.kit.urlguard import read_bounded
from comptoir.link import Usage
from comptoir.transports.push.call import ERROR_CHARS_MAX, PushCall, PushFailed, lines_of


class _Words(msgspec.Struct):
    content: str | None = None


class _InfrintiaChoice(msgspec.Struct):
    delta: _Words | None = None
    message: _Words | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: Int64 = 0
    completion_tokens: Int64 = 0


class _Answer(msgspec.Struct):
    """An event or a whole answer, in any of the accepted formats."""

    token: str | None = None
    tokens: list[str] = []
    output_text: str | None = None
    text: str | None = None
    choices: list[_InfrintiaChoice] = []
    usage: _Counts | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()

    def pieces(self) -> list[str]:
        """Return its text, token by token if it is split that way."""
        found = list(self.tokens)
        if self.token is not None:
            found.append(self.token)
        for choice in self.choices:
            words = choice.delta or choice.message
            text = choice.text if words is None else words.content
            if text:
                found.append(text)
        return found

    def whole(self) -> str:
        """Return the text of an answer that came in one piece."""
        return self.output_text if self.output_text is not None else self.text or ""

    def reason(self) -> str:
        """Return the finish reason; empty if there is none."""
        return self.finish_reason or next((c.finish_reason for c in self.choices if c.finish_reason), "")


_decode = msgspec.json.Decoder(_Answer).decode


class InfrintiaPush:
    """Text in, text out."""

    name = INFRINTIA
    accept = "text/event-stream, application/json"

    def spell(self, call: PushCall) -> bytes:
        """Return the job as one text."""
        plain = text_of(call.job)
        return msgspec.json.encode(
            {
                "job_id": public("job", call.job.id),
                "model": call.job.model,
                "input_text": plain.input_text,
                "max_tokens": plain.max_tokens,
                "temperature": plain.temperature,
                "host_id": public("host", call.host.id),
            }
        )

    async def read(self, response: aiohttp.ClientResponse, call: PushCall) -> None:
        """Read an event stream, or a whole answer."""
        if response.content_type == "text/event-stream":
            await _stream(response, call)
            return
        answer = _answer(await read_bounded(response))
        usage = _usage(answer)
        pieces = answer.pieces()
        if len(pieces) > 1 or (pieces and answer.token is not None):
            frames = frames_of(pieces, job=call.job, counted=usage.completion_tokens)
        else:
            text = pieces[0] if pieces else answer.whole()
            frames = whole_answer(text, job=call.job, counted=usage.completion_tokens)
        call.give(frames)
        await call.complete(finish_reason=answer.reason() or "stop", usage=usage)


async def _stream(response: aiohttp.ClientResponse, call: PushCall) -> None:
    reason, usage = "", Usage()
    async for lines in lines_of(response):
        texts: list[str] = []
        done = False
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if not data:
                continue
            if data == b"[DONE]":
                done = True
                break
            answer = _answer(data)
            texts += answer.pieces()
            reason = answer.reason() or reason
            usage = _usage(answer) if answer.usage is not None else usage
        call.give(frames_of(texts, job=call.job))
        if done:
            await call.complete(finish_reason=reason or "stop", usage=usage)
            return
    raise PushFailed("it hung up before [DONE]")


def _answer(data: bytes) -> _Answer:
    try:
        answer = _decode(data)
    except msgspec.DecodeError as error:
        raise PushFailed(f"its answer is not understood: {error}") from error
    reported = bytes(answer.error)
    if reported not in (b"", b"null"):
        raise PushFailed(f"it reported {reported.decode('utf-8', 'replace')[:ERROR_CHARS_MAX]}")
    return answer


def _usage(answer: _Answer) -> Usage:
    counts = answer.usage
    return Usage(max(0, counts.prompt_tokens), max(0, counts.completion_tokens)) if counts is not None else Usage()
