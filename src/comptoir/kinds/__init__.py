"""Kinds: what is sold here. A kind says in one place how its work is counted, priced, checked, resumed and described.

Owns nothing stored. A kind is a stateless instance of a subclass of `Kind`; a trading post sells the kinds of its
`Kinds`: `BUILT_IN` and those named by the setting ``kinds``. Code outside this package never compares kinds: it asks
the job's kind.
Invariant: the kinds of one offer are sold in the same units; a kind has at most one unit of input, counted once per
job, and one unit of output, counted by the frames that carry it (docs/decisions/0024).
Units: prices are micro-dollars per million of a kind's unit, counts are whole.
Knows: `link` and `kit` only. Both sides of the link use it. How to add one: docs/adding/a-kind.md.
"""

from comptoir.kinds.containers import ContainerChain
from comptoir.kinds.context import CONTEXT_EXCEEDED, context_words
from comptoir.kinds.errors import KindsError, UnknownKind
from comptoir.kinds.extras import FINISH_REASON_CHARS_MAX, BadExtra, read_extra
from comptoir.kinds.kind import Kind, Progress, Resume
from comptoir.kinds.output import Size, bounding_bytes, joined
from comptoir.kinds.registry import BUILT_IN, Kinds, load_kinds
from comptoir.kinds.terms import (
    Ask,
    Part,
    Stage,
    Terms,
    agree,
    bought,
    decode_stages,
    encode_stages,
    extended,
    hold_of,
    quoted_anew,
)
from comptoir.kinds.tokens import Chat, Completion, Embedding, answers_chat, makes_text
from comptoir.kinds.tokens.extras import INDEX_MAX, TEXT_EXTRA_BYTES_MAX, TextExtra
from comptoir.kinds.tokens.finish import broke_off, finish_reason_of
from comptoir.kinds.tokens.tool_calls import ToolCallFragments
from comptoir.kinds.units import MILLION, RUN, TOKEN_IN, TOKEN_OUT, Unit

__all__ = [
    "BUILT_IN",
    "CONTEXT_EXCEEDED",
    "FINISH_REASON_CHARS_MAX",
    "INDEX_MAX",
    "MILLION",
    "RUN",
    "TEXT_EXTRA_BYTES_MAX",
    "TOKEN_IN",
    "TOKEN_OUT",
    "Ask",
    "BadExtra",
    "Chat",
    "Completion",
    "ContainerChain",
    "Embedding",
    "Kind",
    "Kinds",
    "KindsError",
    "Part",
    "Progress",
    "Resume",
    "Size",
    "Stage",
    "Terms",
    "TextExtra",
    "ToolCallFragments",
    "Unit",
    "UnknownKind",
    "agree",
    "answers_chat",
    "bought",
    "bounding_bytes",
    "broke_off",
    "context_words",
    "decode_stages",
    "encode_stages",
    "extended",
    "finish_reason_of",
    "hold_of",
    "joined",
    "load_kinds",
    "makes_text",
    "quoted_anew",
    "read_extra",
]
