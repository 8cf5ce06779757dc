"""Every field that a stranger can fill has a bound in its type, or its reason here.

Strangers are hosts (the link, the pulse, what pollers post, what push hosts answer), buyers, and callers without a key:
every body and query of every dialect. A text, bytes, a list or a mapping needs ``max_length``, or a pattern that
matches nothing long; an integer needs both ends (`Int64` at least), as JSON's have none and databases refuse what is
longer.
"""

import re
from typing import Annotated, Any, get_args

import msgspec
import pytest
from msgspec import Meta
from msgspec import inspect as types

from comptoir.app import DIALECTS
from comptoir.kit.numbers import Int64
from comptoir.link import FromWorker, Pulse
from comptoir.transports.native import NativeLine
from comptoir.transports.push.infrintia import _Answer

PROMPT = "a prompt: `prompt_bytes_max` and `VALUES_MAX` bound it, in words that name them"
ANY_JSON = "only the container or engine reads it: kept as bytes, within `body_bytes_max` and `VALUES_MAX`"
PUSH = "read within `read_bounded`, or a line within `LINE_BYTES_MAX`; dispatch refuses what is too long for a receipt"
DOCUMENT = "describes the body; `translate.Asked` decodes it, and keeps what is any JSON as bytes"

SIGN_OF_LIFE = "what is out of bounds reads as 0 (`hosts.check`): a pulse is a sign of life, whatever it says"

REASONS = {
    "infernet.wire.AnyRequest.data": DOCUMENT,
    "infernet.wire.AnyRequest.signature": DOCUMENT,
    "infernet.wire.AnyRequest.subscription": DOCUMENT,
    "infernet.wire.JobRequest.data": DOCUMENT,
    "infernet POST /api/jobs/batch": "refused in the published shape above 100 jobs (`BATCH_MAX`)",
    "infrintia.wire.RunModel.input_text": PROMPT,
    "link.messages.Pulse.running": SIGN_OF_LIFE,
    "link.messages.Pulse.vram_mib": SIGN_OF_LIFE,
    "native.buying.BuyBody.body": ANY_JSON,
    "openai.wire.ChatBody.tools": ANY_JSON,
    "openai.wire.CompletionBody.prompt": PROMPT,
    "openai.wire.EmbeddingBody.input": PROMPT,
    "openai.wire.Message.content": PROMPT,
    "openai.wire.OpenAIPart.file": ANY_JSON,
    "openai.wire.OpenAIPart.image_url": ANY_JSON,
    "openai.wire.OpenAIPart.input_audio": ANY_JSON,
    "push.infrintia._Answer.choices": PUSH,
    "push.infrintia._Answer.error": PUSH,
    "push.infrintia._Answer.finish_reason": PUSH,
    "push.infrintia._Answer.output_text": PUSH,
    "push.infrintia._Answer.text": PUSH,
    "push.infrintia._Answer.token": PUSH,
    "push.infrintia._Answer.tokens": PUSH,
    "push.infrintia._InfrintiaChoice.finish_reason": PUSH,
    "push.infrintia._InfrintiaChoice.text": PUSH,
    "push.infrintia._Words.content": PUSH,
}

WITHOUT_END = re.compile(r"[*+]|\{\d*,\}")
"""A pattern with one of these matches texts of any length."""


def roots() -> dict[str, Any]:
    """Return all that strangers can send, by where."""
    found: dict[str, Any] = {}
    for dialect in DIALECTS:
        for one in dialect.endpoints:
            for sent in (one.request, one.query):
                if sent is not None:
                    found[f"{dialect.name} {one.method} {one.path}"] = sent
    for message in (*get_args(FromWorker), Pulse, *get_args(NativeLine), _Answer):
        found[message.__name__] = message
    return found


def unbounded(kind: types.Type, where: str, seen: set[type]) -> set[str]:
    """Return the fields below *kind* that have no bound."""
    if isinstance(kind, types.Metadata):
        return unbounded(kind.type, where, seen)
    if isinstance(kind, types.StructType):
        if kind.cls in seen:
            return set()
        seen.add(kind.cls)
        module = kind.cls.__module__.removeprefix("comptoir.").removeprefix("dialects.").removeprefix("transports.")
        names = {field.name: f"{module}.{kind.cls.__name__}.{field.name}" for field in kind.fields}
        return set[str]().union(*[unbounded(field.type, names[field.name], seen) for field in kind.fields])
    if isinstance(kind, types.UnionType):
        return set[str]().union(*[unbounded(one, where, seen) for one in kind.types])
    found = set()
    if isinstance(kind, types.IntType):
        least, most = (kind.ge if kind.gt is None else kind.gt), (kind.le if kind.lt is None else kind.lt)
        return set() if least is not None and most is not None else {where}
    if isinstance(kind, types.ListType | types.VarTupleType | types.SetType | types.FrozenSetType):
        found = unbounded(kind.item_type, where, seen)
    elif isinstance(kind, types.DictType):
        found = unbounded(kind.key_type, where, seen) | unbounded(kind.value_type, where, seen)
    elif isinstance(kind, types.AnyType | types.RawType | types.CustomType | types.TypedDictType):
        return {where}
    if getattr(kind, "max_length", 0) is None and not _ends(getattr(kind, "pattern", None)):
        found.add(where)
    return found


def _ends(pattern: str | None) -> bool:
    return pattern is not None and pattern[0] == "^" and pattern[-1] == "$" and not WITHOUT_END.search(pattern)


class TestFields:
    def test_all_of_them_have_a_bound_or_a_reason(self) -> None:
        seen = set[type]()
        found = set[str]().union(*[unbounded(types.type_info(sent), where, seen) for where, sent in roots().items()])

        assert found == set(REASONS)
        assert len(seen) > 50

    @pytest.mark.parametrize(
        "kind",
        [
            str, bytes, list[Int64], dict[Annotated[str, Meta(max_length=1)], Int64], msgspec.Raw, Any,
            Annotated[list[str], Meta(max_length=3)], Annotated[str, Meta(pattern="^a+$")], Annotated[str, Meta(min_length=1)],
            Int64 | str, Annotated[dict[str, Int64], Meta(max_length=3)], int, Annotated[int, Meta(ge=1)],
            Annotated[int, Meta(lt=9)], Annotated[list[int], Meta(max_length=3)],
        ],
    )  # fmt: skip
    def test_a_field_without_one_is_found(self, kind: Any) -> None:
        planted = msgspec.defstruct("Planted", [("number", Int64), ("field", kind)], module="planted")

        assert unbounded(types.type_info(planted), "", set()) == {"planted.Planted.field"}

    @pytest.mark.parametrize(
        "kind",
        [
            float,
            Annotated[int, Meta(gt=1, lt=9)],
            Annotated[str, Meta(max_length=3)],
            Annotated[str, Meta(pattern="^[a-f]{3}$")],
        ],
    )
    def test_one_with_a_bound_is_not(self, kind: Any) -> None:
        planted = msgspec.defstruct("Planted", [("field", kind)])

        assert unbounded(types.type_info(planted), "", set()) == set()
