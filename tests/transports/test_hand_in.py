"""Workers hand in receipts after a loss: what is ours is taken, and whatever else comes costs nothing."""

import asyncio
import base64
import hashlib
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
import pytest

from comptoir.dispatch import hand_in
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.hand_in import HandedIn
from comptoir.dispatch.lost_commits import HeadVerdict, LostCommits
from comptoir.dispatch.onboard import NewcomerHost, add_host
from comptoir.dispatch.submit import Order, submit
from comptoir.events import ReceiptsWanted
from comptoir.hosts import LINK, NewHost
from comptoir.kit.db import Tx
from comptoir.kit.ids import public
from comptoir.link import (
    HANDED_MAX,
    LINK_VERSION,
    LISTED_MAX,
    RECEIPT_BYTES_MAX,
    AskReceipts,
    Bye,
    ConfirmedHead,
    FromCoordinator,
    HandIn,
    Hello,
    Job,
    KeptReceipt,
    ModelOffer,
    Settled,
    SignedReceipt,
    decode_from_coordinator,
    encode,
    pae,
)
from comptoir.receipts import PAYLOAD_TYPE, HolderKind, Receipt, Receipts, SignedHead
from comptoir.receipts.heads import sign_head
from comptoir.receipts.testing import make_facts, make_key
from comptoir.transports.link import collecting, session
from tests.post import Post, open_post

OFFER = ModelOffer("m", ["chat"])
BODY = b'{"messages":[]}'
T = TypeVar("T")
Answer = Callable[[AskReceipts], HandIn]


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    async with open_post(tmp_path) as opened:
        yield opened


async def lose(post: Post, *, entries: int = 1_000) -> None:
    """Bring a head that says more than the database has, so that commits are missing."""
    await post.core.state(LostCommits).judge_head(head(post, entries=entries))


def head(post: Post, *, entries: int, epoch: int = 0) -> bytes:
    """Return a head of this coordinator's record, signed by it."""
    record = post.core.db.record
    assert record is not None
    return post.core.receipts.sign_head(SignedHead(record.files.record.hex(), epoch, entries, "00" * 32, 1))


def signed(post: Post, number: int, **facts: Any) -> Receipt:
    """Return a receipt that this coordinator signed and never stored."""
    return post.core.receipts.build(make_facts(job_id=number.to_bytes(16, "big"), **facts))


def register_host_key(tx: Tx) -> None:
    """Have `KEY` be some host's."""
    holder = public("host", bytes(16))
    Receipts.register_key(tx, KEY.public_key, holder_kind=HolderKind.HOST, holder=holder, at_ms=0)


def keeps(receipts: Sequence[Receipt]) -> Answer:
    """Return a worker's answers who keeps *receipts*."""
    by_job = {one.job_id: SignedReceipt(one.keyid, one.payload, one.signature) for one in receipts}

    def answer(question: AskReceipts) -> HandIn:
        if question.wanted:
            return HandIn(receipts=[by_job[job_id] for job_id in question.wanted])
        listed = [KeptReceipt(job_id, hashlib.sha256(one.payload).digest()) for job_id, one in by_job.items()]
        return HandIn(listed[question.after :])

    return answer


class Hand:
    """A worker of the other side that keeps receipts, or says so."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, answer: Answer) -> None:
        self.socket = socket
        self.answer = answer
        self.heard: list[FromCoordinator] = []
        self.questions = 0

    async def serve(self) -> None:
        """Answer until the line is closed."""
        async for message in self.socket:
            for one in decode_from_coordinator(message.data):
                self.heard.append(one)
                if isinstance(one, AskReceipts):
                    self.questions += 1
                    await self.socket.send_bytes(encode([self.answer(one)]))


@asynccontextmanager
async def linked(
    post: Post, host: NewcomerHost, answer: Answer, *, heads: Sequence[bytes] = (), keeps_receipts: bool = True
) -> AsyncIterator[Hand]:
    """Link such a worker as *host*; it is served until the block ends."""
    hello = Hello(LINK_VERSION, "test", 1, [OFFER], [], list(heads), keeps_receipts)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {host.key}"}) as session,
        session.ws_connect(f"{post.url}/link") as socket,
    ):
        await socket.send_bytes(encode([hello]))
        hand = Hand(socket, answer)
        serving = asyncio.create_task(hand.serve())
        try:
            async with asyncio.timeout(20):
                while not hand.heard:
                    await asyncio.sleep(0)
            yield hand
        finally:
            await socket.close()
            await serving


async def asked(post: Post) -> HandedIn:
    """Wait until every worker was asked, and return what they handed in."""
    handed = post.core.state(HandedIn)
    async with asyncio.timeout(20):
        await handed.quiet()
    return handed


@pytest.fixture
async def host(post: Post) -> NewcomerHost:
    return await add_host(post.core, NewHost(gpu="x", models=(OFFER,), slots=1, transport=LINK))


async def heard(hand: Hand, kind: type[T]) -> T:
    """Wait for a message."""
    async with asyncio.timeout(20):
        while not (found := [one for one in hand.heard if isinstance(one, kind)]):
            await asyncio.sleep(0.001)
    return found[0]


class TestLeftInHands:
    @pytest.mark.parametrize("keeps_receipts", [True, False])
    async def test_a_settled_job_leaves_its_receipt_and_then_the_head(
        self, post: Post, host: NewcomerHost, monkeypatch: pytest.MonkeyPatch, keeps_receipts: bool
    ) -> None:
        """A worker that does not say that it keeps them is sent neither: the message it does not know would end its
        link."""
        monkeypatch.setattr(session, "HEAD_EVERY_S", 0.001)
        core = post.core
        async with linked(post, host, keeps([]), keeps_receipts=keeps_receipts) as hand:
            job = await submit(core, Order(post.buyer_id, "test", "chat", "m", BODY, 5, True))
            await heard(hand, Job)
            await core.state(LostCommits).sign()
            await cancel(core, job)

            told = await heard(hand, Settled)
            if not keeps_receipts:
                assert told.receipt is None
                line = core.channels[host.host_id]
                assert isinstance(line, session.Session) and line._head_timer is None
                return
            stored = await core.receipts.get(job.id)
            assert told.receipt == SignedReceipt(stored.keyid, stored.payload, stored.signature)
            said = await heard(hand, ConfirmedHead)
            assert await core.state(LostCommits).judge_head(said.statement) is HeadVerdict.KNOWN

    async def test_one_too_long_for_the_link_is_not_sent(
        self, post: Post, host: NewcomerHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session, "RECEIPT_BYTES_MAX", 10)
        async with linked(post, host, keeps([])) as hand:
            job = await submit(post.core, Order(post.buyer_id, "test", "chat", "m", BODY, 5, True))
            await heard(hand, Job)
            await cancel(post.core, job)

            assert (await heard(hand, Settled)).receipt is None


class TestTaken:
    async def test_a_linked_worker_is_asked_for_what_is_missing(self, post: Post, host: NewcomerHost) -> None:
        receipts = [signed(post, number) for number in (1, 2, 3)]
        await post.core.db.run(lambda tx: Receipts.insert_rows(tx, receipts[:1]))
        post.forged = True
        await lose(post)

        async with linked(post, host, keeps(receipts)):
            handed = await asked(post)

        assert {one.job_id for one in handed.oldest_first()} == {one.job_id for one in receipts[1:]}
        assert handed.rejected == 0

    async def test_one_that_is_stored_otherwise_is_handed_in_as_well(self, post: Post, host: NewcomerHost) -> None:
        """Its job was ended in another way before anybody noticed; the operator has to see that."""
        stored, kept = signed(post, 1), signed(post, 1, fee_bps=0)
        await post.core.db.run(lambda tx: Receipts.insert_rows(tx, [stored]))
        post.forged = True
        await lose(post)

        async with linked(post, host, keeps([kept])):
            assert (await asked(post)).oldest_first() == [kept]

    async def test_nobody_is_asked_while_nothing_is_missing(self, post: Post, host: NewcomerHost) -> None:
        async with linked(post, host, keeps([signed(post, 1)])) as hand:
            assert not await asked(post)
            assert hand.questions == 0
            await lose(post)
            post.core.events.publish(ReceiptsWanted())

            assert len(await asked(post)) == 1

    async def test_a_worker_that_keeps_none_is_not_asked(self, post: Post, host: NewcomerHost) -> None:
        await lose(post)
        async with linked(post, host, keeps([]), keeps_receipts=False) as hand:
            post.core.events.publish(ReceiptsWanted())
            await asked(post)

            assert hand.questions == 0

    async def test_two_workers_of_one_job_hand_it_in_once(self, post: Post, host: NewcomerHost) -> None:
        other = await add_host(post.core, NewHost(gpu="x", models=(OFFER,), slots=1, transport=LINK))
        receipts = [signed(post, 1), signed(post, 2)]
        await lose(post)
        async with linked(post, host, keeps(receipts)), linked(post, other, keeps(receipts[::-1])):
            assert len(await asked(post)) == 2

    async def test_what_finds_no_room_is_not_taken_and_asked_for_again(
        self, post: Post, host: NewcomerHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hand_in, "HANDED_IN_MAX", 2)
        receipts = [signed(post, number) for number in range(1, 6)]
        await lose(post)
        async with linked(post, host, keeps(receipts)):
            handed = await asked(post)
            assert (len(handed), handed.short) == (2, True)
            handed.drop([one.job_id for one in handed.oldest_first()])
            post.core.events.publish(ReceiptsWanted())

            assert len(await asked(post)) == 2


KEY = make_key(7)
JOB = (9).to_bytes(16, "big")


def forged(post: Post, receipt: Receipt) -> SignedReceipt:
    return SignedReceipt(receipt.keyid, receipt.payload, bytes(64))


def altered(post: Post, receipt: Receipt) -> SignedReceipt:
    dearer = receipt.payload.replace(b'"charged_uusd":', b'"charged_uusd":1')
    return SignedReceipt(receipt.keyid, dearer, receipt.signature)


def of_another_post(post: Post, receipt: Receipt) -> SignedReceipt:
    return SignedReceipt(KEY.keyid, receipt.payload, KEY.sign(pae(PAYLOAD_TYPE, receipt.payload)))


def by_a_host(post: Post, receipt: Receipt) -> SignedReceipt:
    """Signed with a key that is in the registry, as a host's."""
    return of_another_post(post, receipt)


def under_our_name(post: Post, receipt: Receipt) -> SignedReceipt:
    return msgspec.structs.replace(of_another_post(post, receipt), keyid=receipt.keyid)


def of_another_job(post: Post, receipt: Receipt) -> SignedReceipt:
    other = signed(post, 10)
    return SignedReceipt(other.keyid, other.payload, other.signature)


def of_something_else(post: Post, receipt: Receipt) -> SignedReceipt:
    """A head is signed by us too, and no receipt."""
    said = msgspec.json.decode(head(post, entries=5))
    payload = base64.b64decode(said["payload"])
    return SignedReceipt(receipt.keyid, payload, base64.b64decode(said["signatures"][0]["sig"]))


HOSTILE = [
    (forged, "is not by key"), (altered, "is not by key"), (of_another_post, "no key"), (by_a_host, "no key"),
    (under_our_name, "is not by key"), (of_another_job, "nobody asked for"), (of_something_else, "is not by key"),
]  # fmt: skip
"""What comes in place of a receipt, and why it is not taken."""


class TestHostile:
    @pytest.mark.parametrize(("make", "why"), HOSTILE, ids=[make.__name__ for make, _ in HOSTILE])
    async def test_it_is_not_taken_and_that_worker_is_asked_no_more(
        self,
        post: Post,
        host: NewcomerHost,
        caplog: pytest.LogCaptureFixture,
        make: Callable[[Post, Receipt], SignedReceipt],
        why: str,
    ) -> None:
        good, other = signed(post, 8), signed(post, 9)
        if make is by_a_host:
            await post.core.db.run(register_host_key)
        await lose(post)

        def answer(question: AskReceipts) -> HandIn:
            if question.wanted:
                return HandIn(receipts=[SignedReceipt(good.keyid, good.payload, good.signature), make(post, other)])
            return HandIn([KeptReceipt(good.job_id, b""), KeptReceipt(JOB, b"")], more=True)

        async with linked(post, host, answer) as hand:
            handed = await asked(post)

            assert [one.job_id for one in handed.oldest_first()] == [good.job_id]
            assert (handed.rejected, hand.questions) == (1, 2)
        assert why in caplog.text

    async def test_a_list_without_end_ends(
        self, post: Post, host: NewcomerHost, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A million ids of jobs, of which it hands in none."""
        monkeypatch.setattr(collecting, "LISTED_PER_WORKER_MAX", 2_000)
        await lose(post)

        def answer(question: AskReceipts) -> HandIn:
            if question.wanted:
                return HandIn()
            return HandIn([KeptReceipt(os.urandom(16), b"") for _ in range(500)], more=True)

        async with linked(post, host, answer) as hand:
            assert not await asked(post)
            assert hand.questions == 4 * (1 + math.ceil(500 / HANDED_MAX))

    @pytest.mark.parametrize(
        "message",
        [
            HandIn(receipts=[SignedReceipt("k", b"x" * (RECEIPT_BYTES_MAX + 1), b"s")]),
            HandIn(receipts=[SignedReceipt("k", b"", b"s")] * (HANDED_MAX + 1)),
            HandIn([KeptReceipt(b"j", b"")] * (LISTED_MAX + 1)),
            HandIn([KeptReceipt(b"j" * 65, b"")]),
        ],
        ids=["large", "many", "long list", "long id"],
    )
    async def test_beyond_its_bounds_it_is_no_message(self, post: Post, host: NewcomerHost, message: HandIn) -> None:
        await lose(post)
        async with linked(post, host, lambda question: message) as hand:
            handed = await asked(post)

            assert not handed
            assert any(isinstance(one, Bye) and "not a message" in one.reason for one in hand.heard)

    async def test_unasked_it_breaks_the_protocol(self, post: Post, host: NewcomerHost) -> None:
        async with linked(post, host, keeps([])) as hand:
            await hand.socket.send_bytes(encode([HandIn()]))
            async with asyncio.timeout(20):
                while not any(isinstance(one, Bye) for one in hand.heard):
                    await asyncio.sleep(0)

    async def test_one_that_does_not_answer_is_waited_for_no_longer(
        self, post: Post, host: NewcomerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(collecting, "ANSWER_WITHIN_S", 0.01)
        await lose(post)
        async with linked(post, host, lambda question: HandIn()) as hand:
            hand.answer = lambda question: pytest.fail("it is not asked again")
            assert not await asked(post)


class TestHeads:
    @pytest.mark.parametrize(
        ("epoch", "entries", "lost"),
        [(0, 1_000, True), (0, 0, False), (1, 0, True), (-1, 1_000, False)],
    )
    async def test_only_one_of_ours_beyond_what_we_have_is_a_loss(
        self, post: Post, host: NewcomerHost, epoch: int, entries: int, lost: bool
    ) -> None:
        async with linked(post, host, keeps([]), heads=[b"no head", head(post, epoch=epoch, entries=entries)]):
            assert post.core.db.lost is lost

    async def test_one_under_another_key_says_nothing(self, post: Post, host: NewcomerHost) -> None:
        record = post.core.db.record
        assert record is not None
        foreign = sign_head(SignedHead(record.files.record.hex(), 0, 1_000, "00" * 32, 1), KEY)
        async with linked(post, host, keeps([]), heads=[foreign]):
            assert not post.core.db.lost
