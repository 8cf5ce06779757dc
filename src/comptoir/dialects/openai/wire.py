"""Bodies of the OpenAI dialect: the fields of requests that the coordinator reads, and answers as documented.

Unknown fields in a request are no error: the body goes to the engine byte for byte, and only the engine knows them all.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from comptoir.kit.numbers import Int64

Model = Annotated[str, Meta(min_length=1, max_length=256)]
Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]
Choices = Annotated[int, Meta(ge=1, le=128)]
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
TopP = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
StopText = Annotated[str, Meta(max_length=64 * 1024)]
Stops = Annotated[list[StopText], Meta(max_length=64)]
Prompt = str | Annotated[list[str | Int64 | list[Int64]], Meta(min_length=1)]
"""One text, texts, token ids, or lists of token ids."""

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


class StreamOptions(msgspec.Struct):
    """How to stream."""

    include_usage: bool | None = None


class OpenAIPart(msgspec.Struct):
    """One part of a message; only the engine reads its fields beside the type."""

    type: Annotated[str, Meta(max_length=64)]
    image_url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input_audio: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    file: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: Role
    content: str | Annotated[list[OpenAIPart], Meta(max_length=100_000)] | None = None


class _Sampling(msgspec.Struct):
    """What chat and completion share."""

    model: Model
    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: StopText | Stops | None = None
    seed: Int64 | None = None


class ChatBody(_Sampling, kw_only=True):
    """Body of ``POST /v1/chat/completions``. Fields not listed here are forwarded to the engine."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=100_000)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: Annotated[list[msgspec.Raw], Meta(max_length=4096)] | None = None


class CompletionBody(_Sampling, kw_only=True):
    """Body of ``POST /v1/completions``. Fields not listed here are forwarded to the engine."""

    prompt: Prompt | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    logprobs: TopLogprobs | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """Body of ``POST /v1/embeddings``. Fields not listed here are forwarded to the engine."""

    model: Model
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[str | Int64 | list[Int64]], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


# -- answers, for the reference ----------------------------------------------------------------------------------


class OpenAIUsage(msgspec.Struct):
    """What was counted and is billed, with the engine's own details."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: Decimal
    """What was paid, US dollars, exact to the micro-dollar: the receipt's amount. Our addition."""


class ChatMessage(msgspec.Struct):
    """The assistant's message; further fields (``tool_calls``, ``reasoning_content``) as the engine has them."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: ChatMessage
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct):
    """Answer of ``POST /v1/chat/completions``; with ``stream`` an event stream of ``chat.completion.chunk`` instead."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: OpenAIUsage


class TextChoice(msgspec.Struct):
    """One completed text."""

    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class OpenAICompletion(msgspec.Struct):
    """Answer of ``POST /v1/completions``; with ``stream`` an event stream of its chunks instead."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: OpenAIUsage


class EmbeddingUsage(msgspec.Struct):
    """What was counted and is billed."""

    prompt_tokens: int
    total_tokens: int
    cost: Decimal
    """What was paid, US dollars, exact to the micro-dollar: the receipt's amount. Our addition."""


class OpenAIEmbedding(msgspec.Struct):
    """One vector: numbers, or with ``base64`` its 32-bit floats, little-endian."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class Embeddings(msgspec.Struct):
    """Answer of ``POST /v1/embeddings``."""

    data: list[OpenAIEmbedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class ModelArchitecture(msgspec.Struct):
    """What goes into a model and comes out, as catalogues of several providers (OpenRouter) say it."""

    input_modalities: list[str]
    """``text``, and ``image`` if a host of it reads images."""
    output_modalities: list[str]


class ModelCard(msgspec.Struct):
    """One model on offer. The fields but ``id``, ``object``, ``created`` and ``owned_by`` are our additions."""

    id: str
    created: int
    """When the first of its hosts was registered, seconds since 1970."""
    context_length: int
    """Longest context offered: prompt and answer together, tokens."""
    kinds: list[str]
    """``chat``, ``completion``, ``embedding``."""
    hosts: int
    """Active hosts that offer it."""
    price_in_uusd_per_mtok: int
    """Lowest price on offer, micro-dollars per million prompt tokens."""
    price_out_uusd_per_mtok: int
    capabilities: dict[str, str]
    """What is known of ``tools``, ``vision``, ``schema`` and ``reasoning``: ``probed`` (a host's worker asked for it
    and got it), ``claimed`` (somebody says so) or ``lacking`` (at all hosts); of those that are absent nothing is."""
    architecture: ModelArchitecture
    supported_parameters: list[str]
    """Parameters of a request that have an effect: those of every model, and those of its capabilities, also the
    claimed ones."""
    object: Literal["model"] = "model"
    owned_by: str = "comptoir"


class ModelList(msgspec.Struct):
    """Answer of ``GET /v1/models``."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


# -- errors ------------------------------------------------------------------------------------------------------


class ErrorObject(msgspec.Struct):
    """What went wrong, with the fields that OpenAI's SDKs expect."""

    message: str
    type: str | None
    param: str | int | None
    """Field of the request that the error is about."""
    code: str | int | None


class ErrorBody(msgspec.Struct):
    """Body of every refusal."""

    error: ErrorObject
