"""Evidence against a host over the native API: who sees it, and that it verifies with the published keys alone."""

from pathlib import Path

import aiohttp
import msgspec

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import LINK, NewHost
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.link import ModelOffer, Segment, segment_bytes
from comptoir.receipts import read_registry, verify_exhibits
from tests.dialects.infrintia.caller import Caller
from tests.post import Post, open_post

OFFER = ModelOffer("m", ["chat"], 1000, 0, 100)
KEY = SigningKey(bytes(31) + b"\x07")


async def exhibit(post: Post, host_id: bytes) -> None:
    """Keep as evidence that the host signed another hash than arrived."""
    arrived = Segment(
        public("job", b"J" * 16), public("att", b"A" * 16), public("host", host_id), "m", "00" * 32, 0, 2, "aa" * 32,
        3, 2, "stop",
    )  # fmt: skip
    stated = msgspec.structs.replace(arrived, chain="bb" * 32)
    await post.core.receipts.evidence.keep(
        stated=stated, signature=KEY.sign(segment_bytes(stated)), public_key=KEY.public_key, arrived=arrived
    )


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
