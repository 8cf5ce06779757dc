"""Requests that an engine refuses because they do not fit its context, whatever words it has for that.

The words below are those of vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio, TensorRT-LLM and OpenAI. Buyers get one
error for all of them: OpenAI's ``context_length_exceeded``.
"""

import re
from typing import Any

import msgspec

from comptoir.kinds import CONTEXT_EXCEEDED, Kinds, context_words
from comptoir.worker.engines.base import EngineError, EngineRequest

_STATUSES = frozenset((0, 400, 413, 422, 500))
"""0: the refusal came as an event of a stream that had begun. 500: llama.cpp and Ollama refuse some so."""

_REFUSALS = re.compile(
    r"context_length_exceeded|exceed_context_size"
    r"|maximum (?:context|model|sequence) length|maximum input length"
    r"|exceeds? (?:the )?(?:\w+ )?(?:\w+'s )?(?:maximum |available )?context (?:length|size|window)"
    r"|context (?:length|size|window)\D{0,40}(?:exceeded|not enough)|context length of only"
    r"|longer than the (?:\w+ )?(?:model's )?(?:context|maximum)"
    r"|(?:prompt|input) is too (?:long|large)|input \(\d+ tokens\) is too large"
    r"|inputs?`? tokens? \+ `?max_new_tokens|`inputs` must have less than"
    r"|max_num_tokens|max_seq_len|max_input_len",
    re.IGNORECASE,
)
_CONTEXT = (
    r"(?:context|model|input|sequence) (?:length|size|window)(?: is| of)?(?: only)?[\s:(=]*(\d+)",
    r"`?max_new_tokens`? must be <= (\d+)",
    r"must have less than (\d+)",
    r"(?:max_num_tokens|max_seq_len|max_input_len)[\s:(=]*(\d+)",
    r"batch size: (\d+)",
    r"> (\d+) maximum",
)
_INPUT = (
    r"(\d+) (?:tokens )?(?:in|from) (?:the|your) (?:messages|prompt|input)",
    r"(?:passed|has|given:?) (\d+) `?inputs?`? tokens",
    r"(?:request|input|prompt) \((?:length )?(\d+)",
    r"resulted in (\d+) tokens",
    r"given: (\d+)",
    r"too (?:long|large): (\d+) tokens",
    r"the first (\d+) tokens",
    r"prompt length \((\d+)\)",
)
_OUTPUT = (
    r"(\d+) (?:tokens )?(?:in|for) the completion",
    r"requested (\d+) output tokens",
    r"and (\d+) `max_new_tokens`",
    r"max_(?:completion_)?tokens'? is too large: (\d+)",
)
_BOUNDS = ("max_completion_tokens", "max_tokens")
_kinds = Kinds()


class _LlamaCppNumbers(msgspec.Struct, frozen=True):
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _LlamaCppBody(msgspec.Struct):
    error: _LlamaCppNumbers = _LlamaCppNumbers()


def is_overflow(error: EngineError) -> bool:
    """Tell whether an engine's refusal means that the request does not fit its context."""
    if error.code not in ("bad_request", "upstream_error", CONTEXT_EXCEEDED) or error.status not in _STATUSES:
        return False
    return _REFUSALS.search(_said(error)) is not None


def overflow(error: EngineError, request: EngineRequest) -> EngineError:
    """Return the refusal of a request that does not fit, in OpenAI's shape, for one that `is_overflow`.

    The buyer is at fault. With the engine's numbers, as far as it gave any.
    """
    said = _said(error)
    numbers = _llama_cpps(error.body)
    context = numbers.n_ctx or _number(_CONTEXT, said)
    given = numbers.n_prompt_tokens or _number(_INPUT, said)
    asked = _number(_OUTPUT, said)
    field = _kinds.get(request.kind).input_field
    message = error.message
    if context and (given or asked):
        message = context_words(context_tokens=context, input_tokens=given, output_tokens=asked, field=field)
    fits = given < context if given and context else bool(asked)
    return context_exceeded(message, param=(_bound_in(request.body) if fits else "") or field)


def context_exceeded(message: str, *, param: str) -> EngineError:
    """Return the refusal with OpenAI's body; *param* is the field that is too large."""
    body = {"message": message, "type": "invalid_request_error", "param": param or None, "code": CONTEXT_EXCEEDED}
    return EngineError(
        CONTEXT_EXCEEDED, message, fault="buyer", status=400, body=msgspec.json.encode({"error": body})
    )  # fmt: skip


def _said(error: EngineError) -> str:
    return f"{error.message}\n{error.body.decode(errors='replace')}"


def _number(patterns: tuple[str, ...], said: str) -> int:
    found = (re.search(pattern, said, re.IGNORECASE) for pattern in patterns)
    return next((int(one.group(1)[:12]) for one in found if one is not None), 0)


def _llama_cpps(body: bytes) -> _LlamaCppNumbers:
    try:
        return msgspec.json.decode(body, type=_LlamaCppBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _LlamaCppNumbers()


def _bound_in(body: bytes) -> str:
    """Return the buyer's own bound of the answer, if there is one."""
    fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return next((name for name in _BOUNDS if bytes(fields.get(name, b"null")) not in (b"null", b"0")), "")
