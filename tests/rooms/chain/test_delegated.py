"""Delegated requests: what 1.x clients send comes through exactly, everything else is refused by name and limit."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comptoir.chain import OldSubscription, Signature, parse_delegated
from comptoir.chain.delegated import OLD_FIELDS
from comptoir.chain.testing import make_item, make_signature, make_subscription
from comptoir.kit.errors import InvalidField
from tests.rooms.chain.test_eip712 import subscriptions

uint256 = st.integers(0, 2**256 - 1)
MOST = 2**256 - 1
OLD = {
    "owner": "0x" + 40 * "1",
    "container_id": "echo",
    "inputs": "0x",
    "active_at": 1,
    "frequency": 1,
    "period": 0,
    "redundancy": 1,
    "max_gas_price": 1,
    "max_gas_limit": 1,
}
"""The subscription of the published reference."""


def item(at: str = "", value: Any = None, *, without: bool = False) -> bytes:
    """Return a good item with the field at the path *at* changed or left out."""
    subscription = make_subscription()
    whole = json.loads(make_item(subscription, make_signature(subscription)))
    where = whole
    *parents, name = at.split(".")
    for parent in parents:
        where = where[parent]
    if without:
        del where[name]
    elif name:
        where[name] = value
    return json.dumps(whole).encode()


class TestGood:
    @given(subscriptions, uint256, uint256, st.integers(0, 255))
    def test_every_value_comes_through(self, subscription: Any, r: int, s: int, v: int) -> None:
        signature = Signature(nonce=2**32 - 1, expiry=0, v=v, r=r, s=s)

        found = parse_delegated(make_item(subscription, signature))

        assert (found.subscription, found.signature) == (subscription, signature)

    def test_256_bits_are_exact(self) -> None:
        """orjson would make floats of these, silently."""
        signature = Signature(nonce=1, expiry=2, v=28, r=MOST, s=MOST - 1)

        found = parse_delegated(make_item(make_subscription(payment_amount=MOST), signature))

        assert (found.signature.r, found.signature.s, found.subscription.payment_amount) == (MOST, MOST - 1, MOST)

    def test_data_is_what_was_sent(self) -> None:
        whole = b'{"data": {"a" : 1e400},' + item(without=True, at="data")[1:]

        assert bytes(parse_delegated(whole).data) == b'{"a" : 1e400}'

    def test_it_may_come_raw_out_of_a_batch(self) -> None:
        (raw,) = msgspec.json.decode(b"[" + item() + b"]", type=list[msgspec.Raw])

        assert parse_delegated(raw) == parse_delegated(item())

    @pytest.mark.parametrize(("sent", "meant"), [(True, True), (False, False), (None, False)])
    def test_requires_proof(self, sent: bool | None, meant: bool) -> None:
        assert parse_delegated(item("requires_proof", sent)).requires_proof is meant
        assert parse_delegated(item()).requires_proof is False

    @pytest.mark.parametrize("prefix", ["", "0x"])
    def test_a_hash_comes_with_0x_or_without(self, prefix: str) -> None:
        found = parse_delegated(item("subscription.containers", prefix + 16 * "aBcD"))

        assert found.subscription.containers == bytes.fromhex(16 * "abcd")

    def test_a_wrong_checksum_is_fine(self) -> None:
        """Contracts see 20 bytes; a refusal would only lose a request that the chain takes."""
        assert parse_delegated(item("subscription.owner", "0x" + 20 * "aB")).subscription.owner == "0x" + 20 * "ab"

    @pytest.mark.parametrize("at", ["more", "subscription.more", "signature.more", "id", "ip"])
    def test_unknown_fields_are_ignored(self, at: str) -> None:
        assert parse_delegated(item(at, {"x": 1})) == parse_delegated(item())

    def test_an_old_field_beside_all_of_now_is_ignored(self) -> None:
        assert parse_delegated(item("subscription.container_id", "echo")) == parse_delegated(item())


class TestOld:
    def test_each_old_field_is_named_with_what_replaces_it(self) -> None:
        with pytest.raises(OldSubscription) as caught:
            parse_delegated(item("subscription", OLD))

        assert caught.value.replaced == OLD_FIELDS
        for old in ("container_id", "inputs", "max_gas_price", "max_gas_limit"):
            assert f"{old}: " in caught.value.message
        assert "send containers" in caught.value.message

    def test_only_those_that_came_are_named(self) -> None:
        kept = {name: value for name, value in OLD.items() if name not in ("inputs", "max_gas_price")}

        with pytest.raises(OldSubscription) as caught:
            parse_delegated(item("subscription", kept))

        assert set(caught.value.replaced) == {"container_id", "max_gas_limit"}


FIELDS = [f"subscription.{name}" for name in json.loads(item())["subscription"]] + [
    f"signature.{name}" for name in json.loads(item())["signature"]
]


class TestBad:
    @pytest.mark.parametrize("at", ["subscription", "signature", "data", *FIELDS])
    def test_what_is_missing_is_named(self, at: str) -> None:
        with pytest.raises(InvalidField) as caught:
            parse_delegated(item(at, without=True))

        assert (caught.value.field, caught.value.reason) == (at, "is required")

    @pytest.mark.parametrize("at", ["subscription", "signature", "data", *FIELDS, "requires_proof"])
    @pytest.mark.parametrize("value", [[], 1.5, -1, "x", [[]], 5.0])
    def test_what_is_of_another_type_is_named(self, at: str, value: object) -> None:
        with pytest.raises(InvalidField) as caught:
            parse_delegated(item(at, value))

        assert caught.value.field == at

    @pytest.mark.parametrize(
        ("at", "value", "limit"),
        [
            ("subscription.active_at", 2**32, "4294967295"),
            ("subscription.redundancy", 65536, "65535"),
            ("subscription.payment_amount", 2**256, "2**256 - 1"),
            ("signature.nonce", 2**32, "4294967295"),
            ("signature.v", 256, "255"),
            ("signature.r", 2**256, "2**256 - 1"),
            ("subscription.containers", "0x" + 63 * "0", "64 hexadecimal digits"),
            ("subscription.containers", "0x" + 63 * "0" + "\n", "64 hexadecimal digits"),
            ("subscription.wallet", "0X" + 40 * "0", "40 hexadecimal digits"),
        ],
    )
    def test_what_is_out_of_range_is_named_with_its_limit(self, at: str, value: object, limit: str) -> None:
        with pytest.raises(InvalidField) as caught:
            parse_delegated(item(at, value))

        assert caught.value.field == at and limit in caught.value.reason

    def test_an_exponent_is_no_integer(self) -> None:
        text = item("signature.r", 0).replace(b'"r": 0', b'"r": 5.79e76')

        with pytest.raises(InvalidField, match=r"signature.r: must be a whole number"):
            parse_delegated(text)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b"[]", "must be an object"),
            (b"null", "must be an object"),
            (b"", "is not valid JSON"),
            (b'{"subscription": ', "is not valid JSON"),
            (b'{"data": ' + 100_000 * b"[" + 100_000 * b"]" + b"}", "is nested too deeply"),
        ],
    )
    def test_what_is_no_object_is_refused(self, text: bytes, reason: str) -> None:
        with pytest.raises(InvalidField) as caught:
            parse_delegated(text)

        assert reason in caught.value.reason

    @given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
    def test_nothing_else_ever_comes_out(self, value: object) -> None:
        with pytest.raises(InvalidField):
            parse_delegated(json.dumps(value).encode())
