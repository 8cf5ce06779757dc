"""What a host signed and what arrived: kept as evidence where only the host can have caused the difference."""

import base64
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import complete, take_frames
from comptoir.jobs import JobState, LiveJob
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.link import Frame, Segment, Usage, hash_over, hash_start, segment_bytes
from comptoir.receipts import ExhibitList, ExhibitVerdict, read_registry, verify_exhibits
from tests.street import Street, open_street

Change = Callable[[Segment], Segment]


COUNTED = Usage(3, 2)


@dataclasses.dataclass(frozen=True)
class Said:
    """What a host says at the end of two frames, one token each."""

    signs: Change = lambda arrived: arrived
    """The statement that it signs, from the one about what arrived."""
    chain: bytes | None = None
    """The running hash that it sends; None: the one that it signs."""
    usage: Usage = COUNTED
    key: bool = True
    """Whether it signs with its own key."""


def replaced(**fields: object) -> Change:
    return lambda arrived: msgspec.structs.replace(arrived, **fields)


OTHER = b"\x17" * 32

KEPT = {
    "other frames than it sent": (Said(replaced(chain=OTHER.hex())), "running hash"),
    "more units than its frames state": (Said(replaced(completion_tokens=50), usage=Usage(3, 50)), "signed 50 units"),
    "both": (Said(replaced(chain=OTHER.hex(), completion_tokens=50), usage=Usage(3, 50)), "running hash"),
}
"""Statements that only the holder of the key can have made, and a part of what is said of them."""

NOT_KEPT = {
    "a hash that it did not sign": Said(chain=OTHER),
    "a hash that somebody else signed": Said(replaced(chain=OTHER.hex()), key=False),
    "frames that did not arrive": Said(replaced(end_frame=3, chain=OTHER.hex())),
    "fewer frames than arrived": Said(replaced(end_frame=1, chain=OTHER.hex())),
    "another attempt": Said(replaced(attempt=public("att", bytes(16)), chain=OTHER.hex())),
    "another prompt": Said(replaced(input_sha256="00" * 32, chain=OTHER.hex())),
    "fewer units than its frames state": Said(replaced(completion_tokens=1)),
    "a hash of no length": Said(replaced(chain="00"), chain=b"\0"),
}
"""What a cut line, a mix-up or a stranger can cause as well, and what shows nothing."""


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with open_street(tmp_path) as opened:
        yield opened


async def end_as(street: Street, said: Said, *, revived: bool = False) -> tuple[bytes, LiveJob]:
    """Have a new host deliver two frames and end as *said*; return the host."""
    key = SigningKey.generate()
    host_id, _ = await street.host(public_key=key.public_key)
    job = await street.submit()
    lease = job.lease
    assert lease is not None and lease.host_id == host_id
    take_frames(street.core, job, 0, [Frame("a"), Frame("b")])
    lease.revived = revived
    stated = said.signs(segment_of(job, lease, "stop", Usage(3, 2)))
    signer = key if said.key else SigningKey.generate()
    with pytest.raises(BadSegment):
        await complete(
            street.core,
            job,
            finish_reason="stop",
            usage=said.usage,
            signature=signer.sign(segment_bytes(stated)),
            running_hash=bytes.fromhex(stated.chain) if said.chain is None else said.chain,
        )
    await street.core.background.drain_tasks()
    street.unlink(host_id)
    return host_id, job


async def checked(street: Street, found: ExhibitList) -> list[ExhibitVerdict]:
    return verify_exhibits(msgspec.json.encode(found), read_registry(await street.core.receipts.registry()))


class TestKeepContradiction:
    async def test_what_only_the_host_can_have_signed_is_kept_and_shown_to_anybody(self, street: Street) -> None:
        for said, words in KEPT.values():
            host_id, job = await end_as(street, said)

            (exhibit,) = (found := await street.core.receipts.evidence.of_host(host_id)).evidence
            assert (exhibit.host, exhibit.job) == (public("host", host_id), public("job", job.id))
            assert words in exhibit.says
            assert [(one.ok, one.detail) for one in await checked(street, found)] == [(True, exhibit.says)]
            assert (job.state, job.cost_uusd) == (JobState.FAILED, 0)

    @pytest.mark.parametrize("case", NOT_KEPT)
    async def test_what_something_else_can_cause_as_well_is_not(self, street: Street, case: str) -> None:
        host_id, job = await end_as(street, NOT_KEPT[case])

        assert (await street.core.receipts.evidence.of_host(host_id)).evidence == []
        assert (job.state, job.cost_uusd) == (JobState.FAILED, 0)

    async def test_nor_after_this_process_lost_what_it_had_delivered(self, street: Street) -> None:
        said, _ = KEPT["other frames than it sent"]
        host_id, _ = await end_as(street, said, revived=True)

        assert (await street.core.receipts.evidence.of_host(host_id)).evidence == []

    async def test_the_hash_that_arrived_is_that_of_the_frames(self, street: Street) -> None:
        """Whoever has the answer can compute it, with nothing of ours."""
        said, _ = KEPT["other frames than it sent"]
        host_id, job = await end_as(street, said)

        (exhibit,) = (await street.core.receipts.evidence.of_host(host_id)).evidence
        arrived = msgspec.json.decode(exhibit.arrived.payload, type=Segment)
        assert arrived.chain == hash_over(hash_start(job.id), [Frame("a"), Frame("b")]).hex()
        assert b"chain" in base64.b64decode(msgspec.to_builtins(exhibit.stated)["payload"])
