"""A container's offer is checked like any other: its card, its price by the run, and that it is nothing else."""

from typing import Any

import msgspec
import pytest

from comptoir.hosts import check_offer
from comptoir.hosts.testing import make_offer
from comptoir.kinds import Kinds
from comptoir.kit.errors import InvalidField
from comptoir.kit.money import RUN_PRICE_UUSD_MAX
from comptoir.link import ContainerCard, ModelOffer

CARD = ContainerCard(
    description="x" * 2000,
    image="me/shout:1",
    allowed_ips=["10.0.0.0/8", "::1/128"] * 500,
    timeout_s=86_400.0,
    accepted_payments={"0x" + "0" * 40: str(2**256 - 1)},
    allowed_addresses=["0x" + "a" * 40],
)


def make_container(
    *, name: str = "shout", kinds: tuple[str, ...] = ("container",), card: ContainerCard | None = CARD, price: int = 0
) -> ModelOffer:
    offer = make_offer(name=name, kinds=kinds, price_out=price, can_continue=False)
    return msgspec.structs.replace(offer, container=card)


def make_carded(**fields: Any) -> ModelOffer:
    return make_container(card=msgspec.structs.replace(CARD, **fields))


class TestCheckOffer:
    def test_the_limits_themselves_are_allowed(self) -> None:
        check_offer((make_container(price=RUN_PRICE_UUSD_MAX * 1_000_000),), 1, Kinds())

    @pytest.mark.parametrize(
        ("offer", "field"),
        [
            (make_container(price=RUN_PRICE_UUSD_MAX * 1_000_000 + 1), "models[0].price_out"),
            (make_container(card=None), "models[0]"),
            (make_container(kinds=("chat",)), "models[0]"),
            (make_container(kinds=("container", "chat")), "models[0]"),
            (make_container(kinds=("container", "chat"), card=None, price=10**12), "models[0]"),
            (make_container(kinds=("container", "chat"), price=10**12 + 1), "models[0].price_out"),
            (make_container(name="a,b"), "models[0]"),
            (msgspec.structs.replace(make_container(), can_continue=True), "models[0]"),
            (make_carded(description="x" * 2001), "models[0].container.description"),
            (make_carded(image="a\x00"), "models[0].container.image"),
            (make_carded(timeout_s=0.0), "models[0].container.timeout_s"),
            (make_carded(timeout_s=86_401.0), "models[0].container.timeout_s"),
            (make_carded(timeout_s=float("nan")), "models[0].container.timeout_s"),
            (make_carded(rate_requests=-1), "models[0].container.rate_requests"),
            (make_carded(rate_period_s=0.0), "models[0].container.rate_period_s"),
            (make_carded(allowed_ips=["10.0.0.0/99"]), "models[0].container.allowed_ips"),
            (make_carded(allowed_ips=["10.0.0.0/8"] * 1001), "models[0].container.allowed_ips"),
            (make_carded(accepted_payments={"0x0": "1.5"}), "models[0].container.accepted_payments"),
            (make_carded(accepted_payments={"": "1"}), "models[0].container.accepted_payments"),
            (make_carded(allowed_addresses=["x" * 65]), "models[0].container.allowed_addresses"),
            (make_carded(allowed_delegate_addresses=[""]), "models[0].container.allowed_delegate_addresses"),
        ],
    )
    def test_names_the_field_that_is_out_of_bounds(self, offer: ModelOffer, field: str) -> None:
        with pytest.raises(InvalidField) as caught:
            check_offer((offer,), 1, Kinds())

        assert caught.value.field == field
