"""What an OpenAI-compatible server means by refusing a request: a field that is ours and not the buyer's.

Pure: no I/O. Servers know different parts of OpenAI's API, and some refuse what they don't know. A buyer must not be
told of a field that he never sent, so it is left out, and the server is asked again.
"""

import re

import msgspec

from comptoir.worker.engines.base import EngineError

OURS = ("stream_options", "max_tokens")
"""Fields that `openai_wire.upstream_body` adds and that a server can do without. ``stream`` is not among them: without
it the answer would come whole, and too late."""

_WORDS = {"stream_options": r"stream_options|include_usage", "max_tokens": r"max_tokens"}
_IN_ANY_SENTENCE = frozenset(("model", "messages", "prompt", "input", "stream", "stop", "user", "n"))
_UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unexpected|unsupported|not (?:permitted|supported|allowed|recogni[sz]ed)|extra (?:inputs|fields)"
    r"|additional propert",
    re.IGNORECASE,
)


def refused_of_ours(error: EngineError, *, buyers: bytes, sent: bytes) -> frozenset[str]:
    """Return which fields *error* refuses of those that *sent* has and the *buyers* body has not, or not so.

    Those that it names; or all of them, if it only says that it does not know some field.
    """
    if error.code != "bad_request" or error.status not in (400, 422):
        return frozenset()
    before, after = (msgspec.json.decode(body, type=dict[str, msgspec.Raw]) for body in (buyers, sent))
    ours = [name for name in OURS if name in after and after[name] != before.get(name)]
    said = f"{error.message}\n{error.body.decode(errors='replace')}"
    named = [name for name in ours if re.search(rf"\b(?:{_WORDS[name]})\b", said)]
    if named or not _UNKNOWN.search(said):
        return frozenset(named)
    names_theirs = any(re.search(rf"\b{re.escape(name)}\b", said) for name in before if name not in _IN_ANY_SENTENCE)
    return frozenset(() if names_theirs else ours)
