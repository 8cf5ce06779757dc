"""OpenAI's wire shapes as this worker needs them: requests rewritten, refusals attributed.

Pure: no I/O. Only what we must know is decoded; the rest travels as the bytes it came in.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from comptoir.worker.engines import loose_json
from comptoir.worker.engines.base import EngineError
from comptoir.worker.retry_after import read_retry_after

ERROR_BODY_MAX = 16 * 1024
"""Most bytes of an upstream error body that are kept."""

ERROR_CHARS_MAX = 2000
"""Most characters of an upstream error message that are kept."""


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
        without: fields of `openai_refusals.OURS` that the server refuses. What the buyer wrote there stays, but for
            what is the worker's affair: whether the server streams, and counts.

    Raises:
        EngineError: (fault buyer) the body is not a JSON object.
    """
    try:
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if stream:
            _set_stream_options(fields, without)
            named = "max_tokens" in without or any(bytes(fields.get(name, b"")) not in _NULL for name in _BOUNDS)
            if max_tokens and not named:
                fields["max_tokens"] = max(1, max_tokens // _answers(fields))
    except msgspec.DecodeError as error:
        raise EngineError("bad_request", f"the request is not OpenAI's shape: {error}", fault="buyer") from error
    fields["model"] = model
    if stream and "stream" not in without:
        fields["stream"] = True
    else:
        fields.pop("stream", None)
    return _encode(fields)


def _set_stream_options(fields: dict[str, Any], without: Collection[str]) -> None:
    """Ask for a usage chunk, or for none, whatever the buyer did: the buyer's own is made of what was counted."""
    given = msgspec.json.decode(fields.pop("stream_options", b"null"), type=dict[str, msgspec.Raw] | None)
    options: dict[str, Any] = given or {}
    if "stream" in without:
        return
    options.pop("include_usage", None)
    if "stream_options" not in without:
        options["include_usage"] = True
    if options:
        fields["stream_options"] = options


def _answers(fields: dict[str, Any]) -> int:
    """Return how many texts the request asks for: choices times prompts."""
    choices = msgspec.json.decode(fields.get("n", b"null"), type=int | None) or 1
    prompts: Any = msgspec.json.decode(fields.get("prompt", b"null"))
    many = isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)
    return max(1, choices) * (len(prompts) if many else 1)


def error_message(body: bytes) -> str:
    """Find the message in an error body of OpenAI, vLLM, Ollama, TGI or FastAPI; empty when there is none."""
    try:
        found = loose_json.cleaned(loose_json.loads(body))
    except loose_json.NotJson:
        return ""
    found = found if isinstance(found, dict) else {}
    error = found.get("error")
    inner = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    message = inner or found.get("message") or found.get("detail") or ""
    return (message if isinstance(message, str) else _encode(message).decode())[:ERROR_CHARS_MAX]


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
