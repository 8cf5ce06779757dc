"""Jobs and answers as text, for hosts that take only one text, a length and a temperature.

Jobs are stored as OpenAI-style bodies; such a host returns pieces of text.
"""

from collections.abc import Mapping, Sequence

import msgspec

from comptoir.kinds.kind import Progress
from comptoir.link import Frame

TEMPERATURE_DEFAULT = 1.0
"""Default of OpenAI-style bodies. Infrintia's own jobs always give a temperature."""

BYTES_PER_TOKEN = 4
"""Bytes of text per token, if a host returns a whole answer without a token count."""


class _ContentPart(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _ChatMessage(msgspec.Struct):
    role: str = "user"
    content: str | list[_ContentPart] | None = None


class _ChatBody(msgspec.Struct):
    messages: list[_ChatMessage] = []
    prompt: str | list[object] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None


NEUTRAL: Mapping[str, frozenset[bytes]] = {
    "n": frozenset((b"1",)),
    "best_of": frozenset((b"1",)),
    "echo": frozenset((b"false",)),
    "logprobs": frozenset((b"false",)),
    "top_p": frozenset((b"1", b"1.0")),
    "frequency_penalty": frozenset((b"0", b"0.0")),
    "presence_penalty": frozenset((b"0", b"0.0")),
    "tools": frozenset((b"[]",)),
    "logit_bias": frozenset((b"{}",)),
}
"""Fields that such a host can't receive, with the values that have no effect."""

CARRIED = frozenset(
    (
        "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "stream", "stream_options",
        "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier",
    )
)  # fmt: skip
"""Fields that such a host receives, or that do not concern hosts."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder(_ChatBody, strict=False).decode


class TextJob(msgspec.Struct, frozen=True):
    """A job as text."""

    input_text: str
    max_tokens: int
    temperature: float


def is_text_only(body: bytes) -> bool:
    """Tell whether an OpenAI-style *body* has nothing that a text-only host would have to drop.

    That is: no tools, no images, one answer, and no parameter but length and temperature.
    """
    for name, raw in _fields(body).items():
        value = bytes(raw)
        if name not in CARRIED and value != b"null" and value not in NEUTRAL.get(name, ()):
            return False
    messages = _decode(body).messages
    return all(
        isinstance(message.content, str) or all(part.text is not None for part in message.content or ())
        for message in messages
    )


def text_of(job: Progress) -> TextJob:
    """Return *job* as text: a single message verbatim, several as ``role: text`` paragraphs."""
    body = _decode(job.body)
    most = job.terms.output_max
    asked = body.max_tokens or body.max_completion_tokens or most
    temperature = TEMPERATURE_DEFAULT if body.temperature is None else body.temperature
    if body.messages:
        text = _conversation(body.messages)
    elif isinstance(body.prompt, list):
        text = "\n".join(str(each) for each in body.prompt)
    else:
        text = body.prompt or ""
    return TextJob(text, min(asked, most), temperature)


def _conversation(messages: Sequence[_ChatMessage]) -> str:
    if len(messages) == 1:
        return _words(messages[0])
    return "\n\n".join(f"{message.role}: {_words(message)}" for message in messages)


def _words(message: _ChatMessage) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.text or "" for part in message.content)
    return message.content or ""


def frames_of(pieces: Sequence[str], *, job: Progress, counted: int = 0) -> list[Frame]:
    """Return a host's pieces of text as frames of one token each; empty ones count none.

    Args:
        counted: tokens of the answer by the host's own count, including those delivered before; 0: not given. The last
            frame gets the tokens that are left over, but never more than it has bytes.
    """
    frames = [Frame(piece, 1 if piece else 0) for piece in pieces]
    missing = min(counted, job.terms.output_max) - job.count - len(frames)
    if missing > 0 and frames and frames[-1].text:
        text = frames[-1].text
        frames[-1] = Frame(text, min(1 + missing, len(text.encode())))
    return frames


def whole_answer(text: str, *, job: Progress, counted: int = 0) -> list[Frame]:
    """Return an answer that came in one piece; without a count, four bytes count as one token."""
    guess = counted or job.count + max(1, len(text.encode()) // BYTES_PER_TOKEN)
    return frames_of([text], job=job, counted=guess) if text else []
