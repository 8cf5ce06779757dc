"""What is said today is understood by a worker and a coordinator of commit 6daa2b3, and what they say is understood today.

Fields are written by position and new ones only at the end; what is stored of a job goes by name. A kind of message that the other
side does not know is another matter: it ends a link and costs a coordinator the whole batch, so none may be said to it.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from comptoir import link
from comptoir.cluster import messages as bus
from comptoir.kinds import Stage, decode_stages, encode_stages
from tests.frozen import bus_6daa2b3, worker_6daa2b3

FOLDER = Path(__file__).parent
FROZEN = {
    "bus_6daa2b3.py": "b317147ccd38047ea37aea28dff5510fe016ff77fc2c4feeb9d616dbd4103a07",
    "worker_6daa2b3.py": "79ee34dc38daa37fe783945ec0ebc2d0d5d20c9464b925c9447b92f40b1b810f",
}
"""SHA-256 of each file. What a test finds wrong with one of them is mended on our side: theirs runs on other people's machines."""


def sample(kind: Any) -> Any:
    """Return some value of a type that is nowhere its default."""
    if isinstance(kind, inspect.UnionType):
        return sample(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    if isinstance(kind, inspect.StructType):
        return kind.cls(**{field.name: sample(field.type) for field in kind.fields})
    if isinstance(kind, inspect.ListType):
        return [sample(kind.item_type)]
    if isinstance(kind, inspect.TupleType):
        return tuple(sample(one) for one in kind.item_types)
    if isinstance(kind, inspect.DictType):
        return {sample(kind.key_type): sample(kind.value_type)}
    plain = {
        inspect.IntType: 7, inspect.StrType: "some", inspect.BytesType: b"some", inspect.FloatType: 1.5, inspect.BoolType: True,
    }  # fmt: skip
    return plain[type(kind)]


def kinds_of(union: Any) -> dict[str, type[msgspec.Struct]]:
    """Return the messages of a union by tag."""
    return {str(one.__struct_config__.tag): one for one in get_args(union)}


def said(message: msgspec.Struct) -> Any:
    """Return what is in a message, as plain lists and mappings."""
    return msgspec.to_builtins(message, builtin_types=(bytes,))


def is_within(less: Any, more: Any) -> bool:
    """Tell whether *more* says all that *less* says, with fields behind it or beside it."""
    if isinstance(less, dict):
        return isinstance(more, dict) and all(key in more and is_within(less[key], more[key]) for key in less)
    if isinstance(less, list | tuple):
        return len(less) <= len(more) and all(map(is_within, less, more))
    return bool(less == more)


WAYS = (
    (link.FromWorker, worker_6daa2b3.FromWorker, link.decode_from_worker, worker_6daa2b3.decode_from_worker),
    (
        link.FromCoordinator,
        worker_6daa2b3.FromCoordinator,
        link.decode_from_coordinator,
        worker_6daa2b3.decode_from_coordinator,
    ),
    (bus.Message, bus_6daa2b3.Message, bus.decode, bus_6daa2b3.decode),
)
"""Today's messages, the frozen ones, and who reads which."""

ASKED_FOR = {"news": "totals", "head": "hello", "ask_receipts": "hello"}
"""Kinds of messages that are newer, each said only to who asks for it with the fields behind the frozen ones of another kind."""

ANSWERS = {"hand_in": "ask_receipts"}
"""Those that are said only in answer to one of them."""

FIRST_WORDS = [
    pytest.param(now, then, decode, asking, id=f"{way}-{asking}")
    for way, (now, then, decode, _) in zip(("up", "down", "bus"), WAYS, strict=True)
    for asking in sorted(set(ASKED_FOR.values()) & kinds_of(then).keys())
]

Decode = Callable[[bytes], list[Any]]
CASES = [
    pytest.param(kinds_of(now)[tag], kinds_of(then)[tag], decode_now, decode_then, id=f"{way}-{tag}")
    for way, (now, then, decode_now, decode_then) in zip(("up", "down", "bus"), WAYS, strict=True)
    for tag in kinds_of(then)
]


class TestFrozen:
    @pytest.mark.parametrize("name", FROZEN)
    def test_a_frozen_file_is_as_it_was(self, name: str) -> None:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FROZEN[name]

    @pytest.mark.parametrize("name", FROZEN)
    def test_it_imports_nothing_of_ours(self, name: str) -> None:
        assert "comptoir." not in (FOLDER / name).read_text().replace('"application/vnd.comptoir.', "")


class TestMessages:
    @pytest.mark.parametrize(("now", "then", "decode_now", "decode_then"), CASES)
    def test_what_is_said_today_is_understood_there(
        self, now: type[msgspec.Struct], then: type[msgspec.Struct], decode_now: Decode, decode_then: Decode
    ) -> None:
        message = sample(inspect.type_info(now))
        (heard,) = decode_then(msgspec.msgpack.encode([message]))

        assert type(heard) is then
        assert is_within(said(heard), said(message))

    @pytest.mark.parametrize(("now", "then", "decode_now", "decode_then"), CASES)
    def test_what_is_said_there_is_understood_today(
        self, now: type[msgspec.Struct], then: type[msgspec.Struct], decode_now: Decode, decode_then: Decode
    ) -> None:
        message = sample(inspect.type_info(then))
        (heard,) = decode_now(msgspec.msgpack.encode([message]))

        assert type(heard) is now
        assert is_within(said(message), said(heard))

    @pytest.mark.parametrize(("now", "then"), [way[:2] for way in WAYS], ids=("up", "down", "bus"))
    def test_nothing_is_said_that_nobody_there_knows(self, now: Any, then: Any) -> None:
        assert kinds_of(now).keys() - ASKED_FOR.keys() - ANSWERS.keys() == kinds_of(then).keys()

    @pytest.mark.parametrize(("now", "then", "decode", "asking"), FIRST_WORDS)
    def test_what_is_newer_is_not_asked_for_there(self, now: Any, then: Any, decode: Decode, asking: str) -> None:
        old, new = kinds_of(then)[asking], kinds_of(now)[asking]
        (heard,) = decode(msgspec.msgpack.encode([sample(inspect.type_info(old))]))
        newer = msgspec.structs.fields(new)[len(msgspec.structs.fields(old)) :]

        assert newer
        assert not any(getattr(heard, field.name) for field in newer)

    def test_a_kind_that_is_not_known_costs_the_batch_it_is_in(self) -> None:
        batch = msgspec.msgpack.encode([bus.Hail(), ["newer", 1]])

        with pytest.raises(msgspec.DecodeError, match="newer"):
            bus_6daa2b3.decode(batch)

    def test_a_field_moved_or_taken_away_is_found(self) -> None:
        told = sample(inspect.type_info(link.Settled))
        moved = ["settled", told.job_id, told.lease, told.state, 7, 7, 7]

        assert not is_within(said(told), moved)
        assert not is_within(said(told), said(told)[:-1])

    def test_every_answer_is_to_something_that_is_asked_for(self) -> None:
        assert set(ANSWERS.values()) <= ASKED_FOR.keys()


class TestStored:
    def test_an_offer_that_is_stored_today_is_read_there(self) -> None:
        """`hosts.models` is read by every coordinator on the database, the old ones too."""
        offer = sample(inspect.type_info(link.ModelOffer))
        (read,) = msgspec.json.decode(msgspec.json.encode([offer]), type=list[worker_6daa2b3.ModelOffer])

        assert is_within(said(read), said(offer))

    def test_the_stages_of_a_job_are_read_there_and_here(self) -> None:
        """`jobs.steps`: a coordinator of either time takes over the jobs of the other."""
        stages = (Stage("a", 7, True), Stage("b", 8, False))
        stored = encode_stages(stages)
        assert stored is not None
        read = msgspec.json.decode(stored, type=list[bus_6daa2b3.Step])

        assert [said(one) for one in read] == [["a", 7, True], ["b", 8, False]]
        assert decode_stages(msgspec.json.encode(read)) == stages
