"""OpenAI's requests as orders: what to buy, and how many tokens the hold has to cover."""

import msgspec

from comptoir.dialects.openai.wire import ChatBody, CompletionBody, EmbeddingBody, OpenAIPart
from comptoir.dispatch.core import Core
from comptoir.dispatch.submit import Order
from comptoir.kinds import Chat, Completion, Embedding
from comptoir.kinds.tokens import PROMPT_BYTES_PER_TOKEN
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Request

DIALECT_NAME = "openai"

COMPLETION_MAX_TOKENS = 16
"""Tokens of a completion without a bound, as in OpenAI's reference."""

MEDIA_TOKENS = 2_048
"""Tokens assumed for one image, sound or file: its base64 does not show how many the engine counts."""


def chat_order(core: Core, request: Request) -> Order:
    """Return the order of a chat request.

    Raises:
        InvalidField: more tokens are asked for than ``max_tokens_max``.
    """
    body: ChatBody = request.body
    raw = request.raw
    weight = _text_bytes(body, raw)
    choices = body.n or 1
    # A bound of 0 makes no sense for a chat; servers differ in whether it is an error, so it counts as no bound.
    named = body.max_completion_tokens or body.max_tokens
    each = named or _first_step(core, body.model, weight)
    field = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
    return Order(
        request.principal.id,
        DIALECT_NAME,
        Chat.name,
        body.model,
        raw,
        _bounded(core, field, each) * choices,
        False,
        None,
        choices,
        weight,
        whole=not body.stream,
        open_ended=not named,
    )


def completion_order(core: Core, request: Request) -> Order:
    """Return the order of a completion request.

    Raises:
        InvalidField: more tokens are asked for than ``max_tokens_max``.
    """
    body: CompletionBody = request.body
    each = COMPLETION_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    prompt = body.prompt
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    answers = max(body.n or 1, body.best_of or 1) * prompts
    total = _bounded(core, "max_tokens", each) * answers
    if body.echo:
        # The prompt is returned as part of the answer, and engines count it.
        total += (len(request.raw) // PROMPT_BYTES_PER_TOKEN + 1) * (body.n or 1)
    return Order(
        request.principal.id,
        DIALECT_NAME,
        Completion.name,
        body.model,
        request.raw,
        total,
        False,
        None,
        answers,
        whole=not body.stream,
    )


def embedding_order(request: Request) -> Order:
    """Return the order of an embeddings request; only the input is paid."""
    body: EmbeddingBody = request.body
    return Order(request.principal.id, DIALECT_NAME, Embedding.name, body.model, request.raw, 0, False, whole=True)


def _bounded(core: Core, field: str, tokens: int) -> int:
    limit = core.settings.max_tokens_max
    if tokens > limit:
        raise InvalidField(field, f"must be at most {limit}")
    return tokens


def _first_step(core: Core, model: str, prompt_bytes: int) -> int:
    """Return what the limit of a chat that names none begins with: the default, or what the model's context leaves."""
    settings = core.settings
    default = min(settings.chat_max_tokens_default, settings.max_tokens_max)
    offered = core.fleet.model(model)
    if offered is not None:
        # Routing takes a prompt for half of the tokens that its hold covers; 1 lets it say that the prompt is too long.
        left = offered.max_tokens - prompt_bytes // (2 * PROMPT_BYTES_PER_TOKEN)
        default = max(1, min(default, left))
    return default


def _text_bytes(body: ChatBody, raw: bytes) -> int:
    """Return the bytes of a chat's body that weigh like text; media count `MEDIA_TOKENS` each, whatever their size."""
    weight = len(raw)
    for message in body.messages:
        if type(message.content) is list:
            for part in message.content:
                weight += _media_weight(part)
    return weight


def _media_weight(part: OpenAIPart) -> int:
    held = (part.image_url, part.input_audio, part.file)
    media = sum(len(one) for one in held if isinstance(one, msgspec.Raw))
    return MEDIA_TOKENS * PROMPT_BYTES_PER_TOKEN - media if media else 0
