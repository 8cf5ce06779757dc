"""Evidence against a host over the native API: who sees it, and that it verifies with the published keys alone."""

import dataclasses
from pathlib import Path

import aiohttp
import msgspec

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import LINK, NewHost
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.ledger import BONDS, FORFEITS
from comptoir.link import ModelOffer, Segment, segment_bytes
from comptoir.receipts import read_registry, verify_exhibits
from tests.dialects.infrintia.caller import Answer, Caller
from tests.post import Post, open_post

OFFER = ModelOffer("m", ["chat"], 1000, 0, 100)
KEY = SigningKey(bytes(31) + b"\x07")


async def exhibit(post: Post, host_id: bytes, *, attempt: bytes = b"A" * 16) -> str:
    """Keep as evidence that the host signed another hash than arrived; return its id."""
    arrived = Segment(
        public("job", b"J" * 16), public("att", attempt), public("host", host_id), "m", "00" * 32, 0, 2, "aa" * 32,
        3, 2, "stop",
    )  # fmt: skip
    stated = msgspec.structs.replace(arrived, chain="bb" * 32)
    await post.core.receipts.evidence.keep(
        stated=stated, signature=KEY.sign(segment_bytes(stated)), public_key=KEY.public_key, arrived=arrived
    )
    return public("exhibit", attempt)


async def test_operators_its_owner_and_the_host_see_it_and_anybody_can_verify_it(tmp_path: Path) -> None:
    async with open_post(tmp_path) as post, aiohttp.ClientSession() as session:
        new = NewHost(gpu="x", models=(OFFER,), transport=LINK, public_key=KEY.public_key, owner_id=post.buyer_id)
        made = await add_host(post.core, new)
        other = await add_host(post.core, NewHost(gpu="x", models=(OFFER,), transport=LINK))
        await exhibit(post, made.host_id)
        path = f"/house/hosts/{public('host', made.host_id)}/evidence"

        answers = {
            key: await Caller(session, post.url, key).get(path)
            for key in (post.admin_key, post.buyer_key, made.key, other.key, "")
        }

        assert [one.status for one in answers.values()] == [200, 200, 200, 404, 401]
        bodies = [one.text for one in answers.values() if one.status == 200]
        assert len(set(bodies)) == 1 and answers[post.admin_key].body["evidence"][0]["used_ms"] is None
        keys = (await Caller(session, post.url).get("/house/keys")).text
        (verdict,) = verify_exhibits(bodies[0].encode(), read_registry(keys.encode()))
        assert verdict.ok, verdict.detail
        nobody = await Caller(session, post.url, post.admin_key).get("/house/hosts/host_x/evidence")
        assert nobody.status == 404


BOND_UUSD = 300_000
WHY = "signed frames that it never sent"


async def test_an_operator_forfeits_a_bond_once_for_evidence_and_not_without(tmp_path: Path) -> None:
    asks = {"host_registration": "bond", "host_bond_uusd": BOND_UUSD}
    async with open_post(tmp_path, **asks) as post, aiohttp.ClientSession() as session:
        core, operator = post.core, Caller(session, post.url, post.admin_key)
        await core.ledger.deposit(owner_id=post.buyer_id, amount_uusd=2 * BOND_UUSD)
        new = NewHost(gpu="x", models=(OFFER,), transport=LINK, public_key=KEY.public_key, owner_id=post.buyer_id)
        liar = (await add_host(core, new)).host_id
        other = (await add_host(core, dataclasses.replace(new, public_key=None))).host_id
        without = (await add_host(core, NewHost(gpu="x", models=(OFFER,), transport=LINK), by_operator=True)).host_id
        shown, of_other = await exhibit(post, liar), await exhibit(post, other, attempt=b"B" * 16)
        of_none = await exhibit(post, without, attempt=b"C" * 16)

        async def forfeit(host: bytes, evidence: str, key: str = post.admin_key, **headers: str) -> Answer:
            body = {"evidence": evidence, "reason": WHY}
            path = f"/house/hosts/{public('host', host)}/forfeit"
            return await Caller(session, post.url, key).post(path, body, **headers)

        async def held() -> tuple[int, int]:
            found = await core.ledger.accounts([BONDS, FORFEITS])
            return found[BONDS].balance_uusd, found[FORFEITS].balance_uusd

        refused = [
            await forfeit(liar, of_other),
            await forfeit(liar, public("exhibit", bytes(16))),
            await forfeit(b"?" * 16, shown),
            await forfeit(without, of_none),
            await forfeit(liar, "evidence"),
            await forfeit(liar, shown, post.buyer_key),
        ]
        assert [one.status for one in refused] == [404, 404, 404, 409, 422, 403]
        assert await held() == (2 * BOND_UUSD, 0)
        assert (await operator.get("/house/acts")).body["acts"] == []

        done = [await forfeit(liar, shown, idempotency_key="one") for _ in range(2)]
        again = await forfeit(liar, shown)

        assert [one.status for one in (*done, again)] == [200, 200, 409]
        assert done[0].body == done[1].body and "forfeited" in again.body["error"]["message"]
        assert await held() == (BOND_UUSD, BOND_UUSD)
        (act,) = (await operator.get("/house/acts")).body["acts"]
        assert (act["verb"], act["subject"], act["operator"]) == ("bond.forfeit", public("host", liar), "root")
        assert act["reason"] == f"{WHY} ({shown}, {BOND_UUSD} micro-dollars)"
        (used,) = (await core.receipts.evidence.of_host(liar)).evidence
        assert used.used_ms == act["at_ms"]
        mine = (await Caller(session, post.url, post.buyer_key).get("/house/hosts?mine=true")).body["hosts"]
        assert {host["id"]: host["bond_uusd"] for host in mine} == {
            public("host", liar): 0,
            public("host", other): BOND_UUSD,
        }
