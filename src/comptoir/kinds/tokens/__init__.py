"""Chat, completion and embedding: answers of a model, sold by prompt tokens and answer tokens."""

from collections.abc import Iterable, Sequence

import msgspec

from comptoir.kinds.extras import read_extra
from comptoir.kinds.kind import Kind, Progress, finish_reason_in
from comptoir.kinds.output import Size, text_size
from comptoir.kinds.terms import Ask, Part, Terms
from comptoir.kinds.tokens.capabilities import FIELDS, asked_in
from comptoir.kinds.tokens.extras import TEXT_EXTRA_BYTES_MAX, TextExtra, check_vectors, delta_size, vectors_size
from comptoir.kinds.tokens.text import is_text_only
from comptoir.kinds.units import TOKEN_IN, TOKEN_OUT

PROMPT_BYTES_PER_TOKEN = 3
"""Bytes of request body per prompt token that the hold assumes: ordinary text has about four. A prompt with more tokens
is charged no more than its hold."""

PROMPT_TOKENS_BASE = 32
"""Tokens that a chat template may add to a prompt."""

TEMPLATE_TOKENS_MAX = 1_024
"""Prompt tokens beyond one a byte that are believed: what a chat template may add to a short request."""

PREFILL_S_PER_TOKEN = 0.02
"""Time that a slow host may need per prompt token before its first frame."""

SAMPLE_TOKENS_MAX = 32
"""Tokens requested when an engine is measured."""

SAMPLE_PROMPT = "Count from one to twenty in words."

TOOLS_S = 20.0
"""Shortest pause tolerated in an answer that may contain tool calls: engines assemble a call before sending it."""


_is_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Tokens(Kind):
    """What the three have in common."""

    input = TOKEN_IN
    output = TOKEN_OUT

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        """Return one part, its prompt bounded by the bytes of the body."""
        prompt_bytes = ask.input_bytes or len(ask.body)
        prompt_tokens = prompt_bytes // PROMPT_BYTES_PER_TOKEN + PROMPT_TOKENS_BASE
        return (self._part(ask.model, prompt_tokens, ask.output_max, ask.answers),)

    def part(self, job: Progress) -> Part:
        """Return the whole job: the next host has to process the prompt as well."""
        terms = job.terms
        part = self._part(job.model, terms.input_max, terms.output_max, job.answers)
        return msgspec.structs.replace(part, hold_uusd=terms.hold_uusd)

    def _part(self, model: str, prompt_tokens: int, output_max: int, answers: int) -> Part:
        # Routing expects half of the prompt tokens that the hold covers.
        expected = (prompt_tokens - PROMPT_TOKENS_BASE) // 2
        context = self.context_tokens(input_units=expected, output_units=output_max, answers=answers)
        return Part(model, prompt_tokens, expected, output_max, context)

    def context_tokens(self, *, input_units: int, output_units: int, answers: int = 1) -> int:
        """Return the tokens of the prompt and one answer: each answer has the context for itself."""
        return input_units + output_units // answers

    def check(self, body: bytes) -> str:
        """Return why a body is no OpenAI-style request; empty: it is one."""
        try:
            _is_object(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"must be an OpenAI-style request body: {error}"
        return ""

    def output_in(self, text: str, extras: Sequence[bytes]) -> Size:
        """Return the size of text and deltas; probabilities and the like are no output."""
        solid, blank = text_size(text)
        for extra in extras:
            shown, padding = delta_size(extra)
            solid, blank = solid + shown, blank + padding
        return solid, blank

    def input_countable(self, input_max: int, output_count: int = 0, cores: int = 0) -> int:
        """Return one token for each byte of the body, and what a template may add: no prompt has more."""
        return input_max * PROMPT_BYTES_PER_TOKEN + TEMPLATE_TOKENS_MAX

    def text_only(self, body: bytes) -> bool:
        """Tell whether the body is one text with a length and a temperature."""
        return is_text_only(body)

    def check_extra(self, extra: bytes) -> None:
        """Refuse what no client of OpenAI's API and no engine that goes on from it could read."""
        read_extra(extra, TextExtra, bytes_max=TEXT_EXTRA_BYTES_MAX)

    def finished_already(self, job: Progress) -> str:
        """Return ``length`` if the bound is reached, or the finish reason in the last frame of a single answer."""
        if reason := super().finished_already(job):
            return reason
        return finish_reason_in(job.frames) if job.answers == 1 else ""

    def reading_s(self, terms: Terms) -> float:
        """Return the time that a slow host may need for the prompt."""
        return terms.input_max * PREFILL_S_PER_TOKEN

    def gap_s(self, body: bytes) -> float:
        """Return a longer pause if tools may be called."""
        return TOOLS_S if b'"tools"' in body else 0.0


class Chat(_Tokens):
    """An answer to a conversation."""

    name = "chat"
    input_field = "messages"
    capabilities = FIELDS

    def asks(self, body: bytes) -> frozenset[str]:
        """Return the capabilities that the conversation needs of a model."""
        return asked_in(body)

    def sample(self, model: str) -> bytes:
        """Return a short question."""
        return _sample(model, messages=[{"role": "user", "content": SAMPLE_PROMPT}])


def answers_chat(kinds: Iterable[str]) -> bool:
    """Tell whether an offer of *kinds* can answer chats: on the page, by 'comptoir run', over /v1/chat/completions."""
    return Chat.name in kinds


class Completion(_Tokens):
    """A continuation of a text."""

    name = "completion"
    input_field = "prompt"

    def sample(self, model: str) -> bytes:
        """Return a short prompt."""
        return _sample(model, prompt=SAMPLE_PROMPT)


def makes_text(kinds: Iterable[str]) -> bool:
    """Tell whether an offer of *kinds* gives text, and not only vectors."""
    return any(kind.name in kinds for kind in (Chat, Completion))


class Embedding(_Tokens):
    """Texts as vectors; only the input is paid for."""

    name = "embedding"
    input_field = "input"
    paid_by_output = False

    def output_in(self, text: str, extras: Sequence[bytes]) -> Size:
        """Return the size of the vectors, which were checked when they came; text is no output."""
        return sum([vectors_size(extra)[0] for extra in extras]), 0

    def billable(self, claimed: int, output_bytes: int, passed_ms: int = 0) -> int:
        """Return 0: vectors are free, and the input is paid if any came."""
        return 0

    def check_extra(self, extra: bytes) -> None:
        """Refuse what is no list of vectors."""
        check_vectors(extra)


def _sample(model: str, **asked: object) -> bytes:
    return msgspec.json.encode({"model": model, "max_tokens": SAMPLE_TOKENS_MAX, "temperature": 0, **asked})
