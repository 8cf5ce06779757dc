"""Read a buyer's OpenAI-style body and say it in llama.cpp's words; refuse, naming the field, what can't be honoured.

Only known fields are passed on: llama.cpp's own request fields reach into the server (slots, adapters, files), so a
field that is not listed here has no effect.
"""

from typing import Any, Literal

import msgspec

from .base import EngineError, EngineRequest

TEMPERATURE_MAX = 2.0
TOP_LOGPROBS_MAX = 20
STOPS_MAX = 16
STOP_CHARACTERS_MAX = 512
_SEED_SPACE = 1 << 32
"""llama.cpp's seeds have 32 bits; larger and negative ones are folded into them."""

Json = dict[str, Any]


class _Schema(msgspec.Struct):
    schema: Json = msgspec.field(default_factory=dict)


class _ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None
    schema: Json | None = None


class _LlamaBody(msgspec.Struct):
    """The fields that change an answer; whatever else a client sends is not ours to interpret."""

    messages: list[Json] | None = None
    prompt: str | list[str | int] | None = None
    input: str | list[str | int | list[int]] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    response_format: _ResponseFormat | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    functions: list[Json] | None = None


_decode = msgspec.json.Decoder(_LlamaBody).decode


class LlamaRequest(msgspec.Struct, frozen=True):
    """One request, checked, in llama.cpp's words."""

    kind: str
    messages: list[Json]
    prompt: str | list[int]
    options: Json
    """Sampling fields of llama.cpp's completion request."""
    stops: tuple[str, ...]
    max_tokens: int
    """Most tokens of the whole answer; -1 when only the context limits it."""
    top_logprobs: int
    """How many alternatives the buyer asked for; -1 for no logprobs at all."""
    tools: Json
    """``tools``, ``tool_choice`` as they came; empty without tools."""


def refuse(code: str, message: str, *, field: str = "", status: int = 400) -> EngineError:
    """Return the error for a request that is at fault itself, with OpenAI's error object as body."""
    error = {"message": message, "type": "invalid_request_error", "param": field or None, "code": code}
    return EngineError(code, message, fault="buyer", status=status, body=msgspec.json.encode({"error": error}))


def read_embedding(request: EngineRequest) -> tuple[Json, Literal["float", "base64"]]:
    """Return llama.cpp's embedding request and the buyer's encoding.

    Raises:
        EngineError: ``input`` is missing or empty, or the body is not what OpenAI describes.
    """
    body = _read(request.body)
    if not body.input:
        raise refuse("missing_field", "input: is required and must not be empty", field="input")
    return {"input": body.input, "encoding_format": "float"}, body.encoding_format


def read_ask(request: EngineRequest, *, defaults: Json) -> LlamaRequest:
    """Check a chat or completion request; *defaults* are llama.cpp fields used where the buyer says nothing.

    Raises:
        EngineError: fault ``buyer``, status 400, naming the field.
    """
    body = _read(request.body)
    _refuse_unsupported(body)
    messages: list[Json] = []
    prompt: str | list[int] = ""
    if request.kind == "chat":
        if not body.messages:
            raise refuse("missing_field", "messages: is required and must not be empty", field="messages")
        _only_text(body.messages)
        messages = body.messages
    else:
        prompt = _one_prompt(body.prompt)
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if wanted is not None and wanted < 1:
        raise refuse("invalid_value", f"max_tokens: must be at least 1, not {wanted}", field="max_tokens")
    return LlamaRequest(
        kind=request.kind,
        messages=messages,
        prompt=prompt,
        options=_options(body, defaults),
        stops=_stops(body.stop),
        max_tokens=wanted if wanted is not None else _open_bound(request, defaults),
        top_logprobs=_top_logprobs(body, request.kind),
        tools=_tools(body),
    )


def _open_bound(request: EngineRequest, defaults: Json) -> int:
    """Return the limit of a request that names none: the engine's own, at most what the hold covers; -1 is none."""
    own = int(defaults.get("n_predict", -1))
    if not request.max_tokens:
        return own
    return request.max_tokens if own < 0 else min(own, request.max_tokens)


def _tools(body: _LlamaBody) -> Json:
    """Return the tools in llama.cpp's words, which knows ``auto`` and ``required`` but no tool by name."""
    if not body.tools or body.tool_choice == "none":
        return {}
    if not isinstance(body.tool_choice, dict):
        return {"tools": body.tools, "tool_choice": body.tool_choice or "auto"}
    named = body.tool_choice.get("function")
    name = named.get("name") if isinstance(named, dict) else None
    tools = [
        tool for tool in body.tools if isinstance(tool.get("function"), dict) and tool["function"].get("name") == name
    ]
    if not tools:
        raise refuse("invalid_value", f"tool_choice: there is no tool named {name}", field="tool_choice")
    return {"tools": tools, "tool_choice": "required"}


def _read(data: bytes) -> _LlamaBody:
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        field = place.rstrip("`")
        raise refuse("invalid_type", f"{field}: {reason}" if field else reason, field=field) from error
    except msgspec.DecodeError as error:
        raise refuse("invalid_json", f"the body is not JSON: {error}") from error


def _refuse_unsupported(body: _LlamaBody) -> None:
    """Refuse what one engine process can't do, by name, rather than answer something else."""
    if body.n is not None and body.n != 1:
        raise refuse("unsupported_value", f"n: this engine makes 1 answer a request, not {body.n}", field="n")
    if body.best_of is not None and body.best_of != 1:
        raise refuse("unsupported_value", "best_of: only 1 is supported by this engine", field="best_of")
    if body.echo:
        raise refuse("unsupported_value", "echo: is not supported by this engine", field="echo")
    if body.suffix:
        raise refuse("unsupported_value", "suffix: is not supported by this engine", field="suffix")
    if body.functions:
        raise refuse("unsupported_value", "functions: is out of date, send tools instead", field="functions")


def _only_text(messages: list[Json]) -> None:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or part.get("type") != "text":
                raise refuse("unsupported_value", "messages: this engine reads text parts only", field="messages")


def _one_prompt(prompt: str | list[str | int] | None) -> str | list[int]:
    if prompt is None or prompt == [] or prompt == "":
        raise refuse("missing_field", "prompt: is required and must not be empty", field="prompt")
    if isinstance(prompt, str):
        return prompt
    texts = [piece for piece in prompt if isinstance(piece, str)]
    if not texts:
        return [piece for piece in prompt if isinstance(piece, int)]
    if len(prompt) > 1:
        raise refuse("unsupported_value", f"prompt: 1 prompt a request, not {len(prompt)}", field="prompt")
    return texts[0]


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > STOPS_MAX:
        raise refuse("invalid_value", f"stop: at most {STOPS_MAX} strings, not {len(stops)}", field="stop")
    if any(len(text) > STOP_CHARACTERS_MAX for text in stops):
        raise refuse("invalid_value", f"stop: a string has at most {STOP_CHARACTERS_MAX} characters", field="stop")
    return tuple(text for text in stops if text)


def _top_logprobs(body: _LlamaBody, kind: str) -> int:
    if body.logprobs is None or body.logprobs is False:
        return -1
    if kind == "completion":
        wanted = 0 if body.logprobs is True else int(body.logprobs)
    else:
        wanted = body.top_logprobs or 0
    if not 0 <= wanted <= TOP_LOGPROBS_MAX:
        field = "logprobs" if kind == "completion" else "top_logprobs"
        raise refuse("invalid_value", f"{field}: must be 0..{TOP_LOGPROBS_MAX}, not {wanted}", field=field)
    return wanted


def _options(body: _LlamaBody, defaults: Json) -> Json:
    options = {name: value for name, value in defaults.items() if name != "n_predict"}
    bounded = (
        ("temperature", body.temperature, 0.0, TEMPERATURE_MAX),
        ("top_p", body.top_p, 0.0, 1.0),
        ("min_p", body.min_p, 0.0, 1.0),
        ("presence_penalty", body.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", body.frequency_penalty, -2.0, 2.0),
        ("repeat_penalty", body.repeat_penalty, 0.01, 10.0),
        ("repetition_penalty", body.repetition_penalty, 0.01, 10.0),
    )
    for name, value, low, high in bounded:
        if value is not None:
            if not low <= value <= high:
                raise refuse("invalid_value", f"{name}: must be {low:g}..{high:g}, not {value:g}", field=name)
            options["repeat_penalty" if name == "repetition_penalty" else name] = value
    if body.top_k is not None:
        # OpenAI-compatible servers write "all" as -1, llama.cpp as 0.
        options["top_k"] = max(0, min(body.top_k, 1 << 20))
    if body.seed is not None:
        options["seed"] = body.seed % (_SEED_SPACE - 1)  # The last 32-bit seed means "random" to llama.cpp.
    if body.logit_bias:
        options["logit_bias"] = _logit_bias(body.logit_bias)
    if body.response_format is not None and body.response_format.type != "text":
        options["json_schema"] = _schema(body.response_format)
    return options


def _logit_bias(bias: dict[str, float]) -> list[list[float]]:
    pairs: list[list[float]] = []
    for token, value in bias.items():
        if not token.isdecimal() or not -100 <= value <= 100:
            raise refuse("invalid_value", "logit_bias: token ids to -100..100", field="logit_bias")
        pairs.append([int(token), value])
    return pairs


def _schema(wanted: _ResponseFormat) -> Json:
    if wanted.type == "json_object":
        schema = wanted.schema or {"type": "object"}
    elif wanted.json_schema is None:
        raise refuse("missing_field", "response_format.json_schema: is required", field="response_format")
    else:
        schema = wanted.json_schema.schema
    # Free white space is a trap for small models, which may never leave it; compact JSON is JSON too.
    return {"x-guidance": {"whitespace_flexible": False}} | schema
