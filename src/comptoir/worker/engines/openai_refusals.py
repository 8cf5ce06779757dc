"""What an OpenAI-compatible server means by refusing a request: a field that is ours and not the buyer's.

Pure: no I/O. Servers know different parts of OpenAI's API, and some refuse what they don't know. A buyer must not be
told of a field that he never sent, so it is left out, and the server is asked again.
"""

import re

import msgspec

from comptoir.worker.engines.base import EngineError

OURS = ("stream_options", "max_tokens", "stream")
"""Fields that `openai_wire.upstream_body` sets and that a server can do without; without ``stream``, the answer comes
whole, and the buyer still gets it in the form that was asked for."""

_WORDS = {"stream_options": r"stream_options|include_usage", "max_tokens": r"max_tokens", "stream": r"stream(?:ing)?"}
_IN_ANY_SENTENCE = frozenset(("model", "messages", "prompt", "input", "stream", "stop", "user", "n"))
_UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unexpected|unsupported|not (?:permitted|support|allowed|recogni[sz]ed)|extra (?:inputs|fields)"
    r"|additional propert",
    re.IGNORECASE,
)


def refused_of_ours(error: EngineError, *, buyers: bytes, sent: bytes) -> frozenset[str]:
    """Return which fields of *sent* are refused by *error* and are not the buyer's affair (*buyers*: the body as sent).

    Those that it names; or all but ``stream``, if it only says that it does not know some field.
    """
    if error.code != "bad_request" or error.status not in (400, 422):
        return frozenset()
    before, after = (msgspec.json.decode(body, type=dict[str, msgspec.Raw]) for body in (buyers, sent))
    ours = [name for name in OURS if _is_ours(name, before, after)]
    said = f"{error.message}\n{error.body.decode(errors='replace')}"
    named = [name for name in ours if re.search(rf"\b(?:{_WORDS[name]})\b", said, re.IGNORECASE)]
    if named[:1] != ["stream"] and (named or not _UNKNOWN.search(said)):
        # What is said of the options of a stream says "stream" as well.
        return frozenset(named) - {"stream"}
    names_theirs = any(re.search(rf"\b{re.escape(name)}\b", said) for name in before if name not in _IN_ANY_SENTENCE)
    if names_theirs or not _UNKNOWN.search(said):
        return frozenset()
    return frozenset(named or [name for name in ours if name != "stream"])


def _is_ours(name: str, before: dict[str, msgspec.Raw], after: dict[str, msgspec.Raw]) -> bool:
    if name == "stream_options":
        return b'"include_usage"' in bytes(after.get(name, b""))
    return name in after and (name == "stream" or after[name] != before.get(name))
