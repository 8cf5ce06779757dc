"""Delegated subscriptions: read to the bit, their signature checked where a domain is known, and refused either way."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from comptoir.chain.testing import make_domain, make_item, make_signature, make_subscription
from comptoir.settings import SettingsError, load
from tests.dialects.infernet.shop import Node, open_node

FOREVER = 2**32 - 1
DOMAIN = make_domain()
KNOWN = {"infernet_chain_id": DOMAIN.chain_id, "infernet_coordinator": "0x" + 20 * "c0"}

NOT_ENABLED = {"error": "Chain not enabled"}


def item(*, expiry: int = FOREVER, **changes: Any) -> dict[str, Any]:
    """Return a well-signed request, with *changes* (``subscription.owner=…`` by ``__``) made after signing."""
    subscription = make_subscription(payment_amount=2**256 - 1)
    made: dict[str, Any] = json.loads(make_item(subscription, make_signature(subscription, expiry=expiry)))
    for path, value in changes.items():
        part, _, name = path.partition("__")
        if value is None:
            del made[part][name]
        else:
            made[part][name] = value
    return made


class TestShape:
    async def test_the_wire_shape_of_today_is_read_and_refused(self, node: Node) -> None:
        """A real node answers this with a 500 (its enum can't be made JSON)."""
        said = await node.ask("POST", "/api/jobs", item())
        assert (said.status, said.json) == (405, NOT_ENABLED)
        batch = await node.ask("POST", "/api/jobs/batch", [item(), {"containers": ["a"], "data": {}}])
        assert batch.json[0] == NOT_ENABLED and list(batch.json[1]) == ["id"]

    async def test_the_references_older_names_are_told_the_new_ones(self, node: Node) -> None:
        old = {
            "owner": "0x" + 40 * "1",
            "container_id": "a",
            "inputs": "",
            "active_at": 1,
            "frequency": 1,
            "period": 0,
            "redundancy": 1,
            "max_gas_price": 1,
            "max_gas_limit": 1,
        }
        said = await node.ask("POST", "/api/jobs", item() | {"subscription": old})

        assert said.status == 400
        assert set(said.json["params"]["replaced"]) == {"container_id", "inputs", "max_gas_price", "max_gas_limit"}
        assert "containers" in said.json["params"]["replaced"]["container_id"]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"subscription__owner": None}, "subscription.owner"),
            ({"subscription__owner": "0x12"}, "subscription.owner"),
            ({"subscription__payment_amount": 2**256}, "subscription.payment_amount"),
            ({"subscription__active_at": "1"}, "subscription.active_at"),
            ({"subscription__containers": "echo"}, "subscription.containers"),
            ({"subscription__lazy": 1}, "subscription.lazy"),
            ({"signature__r": 2**256}, "signature.r"),
            ({"signature__s": "1"}, "signature.s"),
            ({"signature__s": math.pi}, "signature.s"),
            ({"signature__v": None}, "signature.v"),
        ],
    )
    async def test_what_is_no_subscription_is_a_400_that_says_where(
        self, node: Node, changes: dict[str, Any], field: str
    ) -> None:
        said = await node.ask("POST", "/api/jobs", item(**changes))
        assert (said.status, said.json["params"]) == (400, {"field": field})


class TestSignature:
    async def test_it_is_checked_where_the_domain_is_known(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={}, **KNOWN) as node:
            good = await node.ask("POST", "/api/jobs", item())
            assert (good.status, good.json) == (405, NOT_ENABLED)

            late = await node.ask("POST", "/api/jobs", item(expiry=1_000_000_000))
            assert (late.status, late.json) == (405, {"error": "Signature expired"})

            for changes in ({"signature__v": 0}, {"signature__r": 0}, {"signature__s": 0}, {"signature__r": 5}):
                said = await node.ask("POST", "/api/jobs", item(**changes))
                assert said.status == 400 and said.json["error"].startswith("signature"), changes

    async def test_without_a_domain_nothing_is_said_of_it(self, node: Node) -> None:
        said = await node.ask("POST", "/api/jobs", item(expiry=1_000_000_000, signature__v=0))
        assert (said.status, said.json) == (405, NOT_ENABLED)

    def test_half_a_domain_is_no_setting(self) -> None:
        for name in KNOWN:
            with pytest.raises(SettingsError, match="needs both"):
                load({name: KNOWN[name]})


class TestContainerSet:
    @pytest.mark.parametrize(
        ("containers", "digest"),
        [
            ("echo", "0xe6bc11afcedb3f26d7fb181f4c6dd2e98781d79f965a4777058412b58f788ec8"),
            ("a,b", None),
            (",".join(f"c{n}" for n in range(32)), None),
        ],
    )
    async def test_its_hash_is_worked_out_when_asked_for(self, node: Node, containers: str, digest: str | None) -> None:
        """The real node has a table of all permutations ready: ten containers would be ten million rows."""
        said = await node.ask("GET", f"/api/containers/hash?containers={containers}")

        assert said.json["containers"] == containers.split(",")
        assert len(said.json["hash"]) == 66
        assert digest is None or said.json["hash"] == digest

    async def test_what_names_no_set_is_a_400(self, node: Node) -> None:
        for query in ("", "?containers=", "?containers=a,,b"):
            assert (await node.ask("GET", f"/api/containers/hash{query}")).status == 400
