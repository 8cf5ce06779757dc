"""Evidence over both databases: how much is kept, and what a verifier makes of it offline."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey, keyid_of
from comptoir.link import SEGMENT_PAYLOAD_TYPE, Segment, pae, segment_bytes
from comptoir.receipts import (
    COORDINATOR,
    TABLES,
    HolderKind,
    PublishedKey,
    Receipts,
    UnknownExhibit,
    evidence,
    registry_of,
    statement_bytes,
    use_exhibit,
    verify_exhibits,
)
from tests.conftest import MakeDatabase

GOLDEN = Path(__file__).parent / "golden"
HOST, OTHER_HOST, JOB = b"H" * 16, b"G" * 16, b"J" * 16
HOST_KEY, OTHER_KEY, OUR_KEY = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))


def segment(number: int = 1, *, host: bytes = HOST, **fields: Any) -> Segment:
    """Return a statement about attempt *number*."""
    made = Segment(
        public("job", JOB), public("att", bytes([0] * 15 + [number])), public("host", host), "m", "00" * 32, 0, 2,
        "aa" * 32, 3, 2, "stop",
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
def receipts(database: Database, clock: FakeClock) -> Receipts:
    return Receipts(database, clock, OUR_KEY)


async def keep(receipts: Receipts, number: int = 1, *, host: bytes = HOST) -> bool:
    stated = segment(number, host=host, chain="bb" * 32)
    return await receipts.evidence.keep(
        stated=stated,
        signature=HOST_KEY.sign(segment_bytes(stated)),
        public_key=HOST_KEY.public_key,
        arrived=segment(number, host=host),
    )


async def kept(receipts: Receipts, host: bytes = HOST) -> list[str]:
    return [one.id for one in (await receipts.evidence.of_host(host)).evidence]


class TestKeep:
    async def test_an_attempt_is_kept_once_and_a_host_has_so_many(self, receipts: Receipts) -> None:
        most = evidence.EVIDENCE_PER_HOST_MAX
        outcomes = [await keep(receipts, number) for number in (1, 1, *range(2, most + 3))]

        assert outcomes == [True] * (most + 1) + [False, False]
        assert await kept(receipts) == [public("exhibit", bytes([0] * 15 + [n])) for n in range(1, most + 1)]

    async def test_beyond_the_bound_the_oldest_goes_that_nobody_used(
        self, receipts: Receipts, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evidence, "EVIDENCE_MAX", 3)
        for number in (1, 2):
            await keep(receipts, number)
        used, oldest = await kept(receipts)
        await database.run(lambda tx: use_exhibit(tx, used, HOST, 7))

        for number in (3, 4):
            await keep(receipts, number, host=OTHER_HOST)

        assert await kept(receipts) == [used]
        assert len(await kept(receipts, OTHER_HOST)) == 2 and oldest not in await kept(receipts, OTHER_HOST)


class TestUse:
    async def test_it_is_marked_once_and_only_for_its_host(self, receipts: Receipts, database: Database) -> None:
        await keep(receipts)
        (one,) = await kept(receipts)
        for host, name in ((OTHER_HOST, one), (HOST, public("exhibit", bytes(16))), (HOST, "nonsense")):
            with pytest.raises(UnknownExhibit):
                await database.run(lambda tx, host=host, name=name: use_exhibit(tx, name, host, 7))

        for at_ms in (8, 9):
            await database.run(lambda tx, at_ms=at_ms: use_exhibit(tx, one, HOST, at_ms))

        assert [each.used_ms for each in (await receipts.evidence.of_host(HOST)).evidence] == [8]


def envelope(stated: Segment, key: SigningKey) -> evidence.ExhibitEnvelope:
    payload = statement_bytes(stated)
    signature = evidence.ExhibitSignature(key.keyid, key.sign(pae(SEGMENT_PAYLOAD_TYPE, payload)))
    return evidence.ExhibitEnvelope(payload, SEGMENT_PAYLOAD_TYPE, (signature,))


def exhibit(
    stated: Segment, arrived: Segment, *, host_key: SigningKey = HOST_KEY, our_key: SigningKey = OUR_KEY
) -> Any:
    made = evidence.Exhibit(
        "exhibit_" + arrived.attempt[4:], arrived.host, arrived.job, 1, "it says so", envelope(stated, host_key),
        envelope(arrived, our_key), None,
    )  # fmt: skip
    return evidence.ExhibitList(arrived.host, [made])


KEYS = [
    PublishedKey(keyid_of(key.public_key), key.public_key.hex(), kind, holder, 0)
    for key, kind, holder in (
        (HOST_KEY, HolderKind.HOST, public("host", HOST)),
        (OTHER_KEY, HolderKind.HOST, public("host", OTHER_HOST)),
        (OUR_KEY, HolderKind.COORDINATOR, COORDINATOR),
    )
]
REGISTRY = registry_of(KEYS)

LIE = segment(chain="bb" * 32)
REJECTED = {
    "the host said what arrived": (exhibit(segment(), segment()), "does not contradict"),
    "fewer units": (exhibit(segment(completion_tokens=1), segment()), "does not contradict"),
    "other frames of the same attempt": (exhibit(segment(chain="bb" * 32, end_frame=3), segment()), "not contradict"),
    "another attempt": (exhibit(segment(2, chain="bb" * 32), segment()), "another host, job or attempt"),
    "signed by another host": (exhibit(LIE, segment(), host_key=OTHER_KEY), "not of host"),
    "signed by us": (exhibit(LIE, segment(), host_key=OUR_KEY), "not of host"),
    "what arrived, signed by the host": (exhibit(LIE, segment(), our_key=HOST_KEY), "not of coordinator"),
    "a key that nobody knows": (exhibit(LIE, segment(), host_key=SigningKey(bytes([9]) * 32)), "no key"),
}
"""Files of exhibits that show nothing, and a part of why."""


def garbage(key: SigningKey) -> evidence.ExhibitEnvelope:
    """Return what a host signed that is no statement at all."""
    signature = evidence.ExhibitSignature(key.keyid, key.sign(pae(SEGMENT_PAYLOAD_TYPE, b"{}")))
    return evidence.ExhibitEnvelope(b"{}", SEGMENT_PAYLOAD_TYPE, (signature,))


def changed(of: Callable[[bytes], bytes]) -> bytes:
    return of(msgspec.json.encode(exhibit(LIE, segment())))


class TestVerify:
    @pytest.mark.parametrize("stated", [LIE, segment(completion_tokens=3)])
    def test_a_contradiction_of_two_signed_statements_is_shown(self, stated: Segment) -> None:
        (verdict,) = verify_exhibits(msgspec.json.encode(exhibit(stated, segment())), REGISTRY)

        assert verdict.ok and verdict.detail.startswith("the host signed")

    @pytest.mark.parametrize("case", REJECTED)
    def test_anything_else_is_rejected_with_its_reason(self, case: str) -> None:
        file, words = REJECTED[case]

        (verdict,) = verify_exhibits(msgspec.json.encode(file), REGISTRY)

        assert not verdict.ok and words in verdict.detail

    def test_something_else_that_the_host_signed_is_rejected(self) -> None:
        whole = exhibit(LIE, segment())
        other = msgspec.structs.replace(whole.evidence[0], stated=garbage(HOST_KEY))

        (verdict,) = verify_exhibits(msgspec.json.encode(evidence.ExhibitList(whole.host, [other])), REGISTRY)

        assert not verdict.ok and "is no statement about frames" in verdict.detail

    def test_a_list_that_was_saved_verifies_for_ever(self) -> None:
        """Written on 1 December 2026; whoever keeps one keeps it for a dispute."""
        (verdict,) = verify_exhibits((GOLDEN / "evidence.json").read_bytes(), REGISTRY)

        assert verdict.ok and verdict.detail == evidence.OTHER_FRAMES

    def test_a_changed_byte_of_a_statement_or_signature_is_noticed(self) -> None:
        whole = exhibit(LIE, segment())
        for name in ("stated", "arrived"):
            one = getattr(whole.evidence[0], name)
            longer = msgspec.structs.replace(one, payload=one.payload.replace(b'"m"', b'"n"'))
            (verdict,) = verify_exhibits(
                msgspec.json.encode(
                    evidence.ExhibitList(whole.host, [msgspec.structs.replace(whole.evidence[0], **{name: longer})])
                ),
                REGISTRY,
            )
            assert not verdict.ok and "signature is not by" in verdict.detail

    @pytest.mark.parametrize(
        "of",
        [
            lambda data: b"{}",
            lambda data: b"[" * 100_000,
            lambda data: data + b" " * evidence.EXHIBITS_BYTES_MAX,
            lambda data: data.replace(b'"host":', b'"host":"x","host":', 1),
            lambda data: data.replace(b'"evidence":', b'"more":1,"evidence":', 1),
            lambda data: b"\xff",
        ],
        ids=["another file", "nested", "too large", "a field twice", "a field beside", "no UTF-8"],
    )
    def test_a_file_that_two_readers_could_read_differently_is_none(self, of: Callable[[bytes], bytes]) -> None:
        with pytest.raises(ValueError, match=r"not |larger"):
            verify_exhibits(changed(of), REGISTRY)

    def test_a_file_laid_out_for_people_is_the_same_file(self) -> None:
        (verdict,) = verify_exhibits(changed(lambda data: msgspec.json.format(data, indent=2)), REGISTRY)

        assert verdict.ok
