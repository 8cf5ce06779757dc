"""Files that a job needs and makes: kept in the command that writes it, released after whatever end it has, and by the
next sweep where that was cut short; both databases."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.blobs import Blob, MadeFor, UnknownFile
from comptoir.dispatch.artifacts import FilesUnseen, look
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.files import Files
from comptoir.dispatch.job_files import KnownInputs, keeper_of, leased_work
from comptoir.dispatch.release_files import SURELY_WRITTEN_MS, sweep_files
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import Fault, JobState, LiveJob, NotYourLease
from comptoir.kinds.files import Artifact, file_frame
from comptoir.kit.errors import InvalidField, Unavailable
from comptoir.kit.ids import public
from comptoir.ledger import InsufficientCredit
from comptoir.link import ModelOffer, Usage
from tests.dispatch.continuing import lease_of
from tests.street import OFFER as CHAT
from tests.street import Street, open_street
from tests.working import OFFER as SAID
from tests.working import TARGET, Work

OFFER = ModelOffer("smith", [Work.name], prices=SAID["prices"], can_continue=True)


@pytest.fixture
async def street(tmp_path: Path, database_address: str) -> AsyncIterator[Street]:
    """A house that sells work on files, on each database."""
    async with open_street(tmp_path, database=database_address, kinds=(TARGET,)) as opened:
        yield opened


async def put(street: Street, data: bytes = b"input") -> Blob:
    """Upload a file of the buyer's."""
    blobs = street.core.state(Files).blobs
    upload = blobs.resume(await blobs.begin(owner_id=street.buyer_id, name="a.txt", size=len(data)))
    await blobs.append(upload, data)
    return upload.blob


def order(street: Street, blob: Blob, *, output_max: int = 10, job_id: bytes | None = None) -> Order:
    body = msgspec.json.encode({"inputs": [{"file": public("file", blob.id)}]})
    return Order(street.buyer_id, "test", Work.name, "smith", body, output_max, True, job_id)


async def kept(street: Street) -> list[str]:
    """Return who keeps files."""
    return [row[0] for row in await street.core.db.fetch("SELECT DISTINCT keeper FROM file_keeps ORDER BY keeper")]


class TestSubmit:
    async def test_a_job_and_its_keeps_are_written_together(self, street: Street) -> None:
        await street.host(offer=OFFER, slots=4)
        one, other = await put(street), await put(street, b"other")

        jobs = await asyncio.gather(*(submit(street.core, order(street, blob)) for blob in (one, other, one)))

        assert await kept(street) == sorted(keeper_of(job.id) for job in jobs)
        rows = await street.core.db.fetch("SELECT count(*) FROM file_keeps")
        assert rows == [(3,)]

    async def test_one_that_is_refused_keeps_nothing_also_beside_one_that_is_not(self, street: Street) -> None:
        """They are items of one batch."""
        await street.host(offer=OFFER, slots=4)
        blob = await put(street)

        done = await asyncio.gather(
            submit(street.core, order(street, blob)),
            submit(street.core, order(street, blob, output_max=10**9)),
            return_exceptions=True,
        )

        assert isinstance(done[0], LiveJob) and isinstance(done[1], InsufficientCredit)
        assert await kept(street) == [keeper_of(done[0].id)]

    async def test_a_file_that_is_deleted_at_the_same_moment_is_not_missed_later(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was there when it was looked up."""
        await street.host(offer=OFFER)
        blob, free = await put(street), await street.free_uusd()
        asked = order(street, blob)

        async def looked_up(*_: object, **__: object) -> KnownInputs:
            await street.core.state(Files).blobs.delete(blob.id, owner_id=street.buyer_id)
            return KnownInputs(asked.body, (blob.id,))

        monkeypatch.setattr("comptoir.dispatch.submit.look_up_inputs", looked_up)

        with pytest.raises(UnknownFile):
            await submit(street.core, asked)

        assert (await street.free_uusd(), await kept(street)) == (free, [])
        assert await street.core.db.fetch("SELECT * FROM jobs") == []

    async def test_of_submits_and_deletions_at_once_each_job_has_its_file(self, street: Street) -> None:
        await street.host(offer=OFFER, slots=8)
        blobs = street.core.state(Files).blobs
        for _ in range(5):
            blob = await put(street)
            buying = [submit(street.core, order(street, blob)) for _ in range(2)]
            deleting = blobs.delete(blob.id, owner_id=street.buyer_id)

            *done, _, _ = await asyncio.gather(*buying, deleting, blobs.collect(), return_exceptions=True)

            for job in done:
                if isinstance(job, LiveJob):
                    there = (await blobs.kept(blob.id, keeper_of(job.id))).blob
                    assert b"".join([piece async for piece in blobs.read(there, 0, 5)]) == b"input"
                    await cancel(street.core, job)
            await street.core.background.drain_tasks()
        assert await kept(street) == []

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b'{"inputs": 7}', b'{"inputs": [{"name": "\xff"}]}', b"[" * 5_000]
    )
    async def test_what_names_no_inputs_at_all_is_refused_whoever_brings_it(self, street: Street, body: bytes) -> None:
        """Its receipt is made of them, in the command that ends it."""
        await street.host(offer=OFFER)

        with pytest.raises(InvalidField):
            await submit(street.core, Order(street.buyer_id, "test", Work.name, "smith", body, 10, True))

    async def test_its_host_begins_after_the_commit(self, street: Street) -> None:
        """A coordinator that is asked for the input of a job which is not written would say that there is none."""
        await street.host(offer=CHAT)
        _, channel = await street.host(offer=OFFER)
        for _ in range(2):  # From the second on the buyer's credit was seen, which is when others begin early.
            submitting = asyncio.ensure_future(submit(street.core, order(street, await put(street))))
            await asyncio.sleep(0)
            sent = len(channel.sent)
            await cancel(street.core, await submitting)
            assert sent == len(channel.sent) - 1


class TestEnds:
    @pytest.mark.parametrize("how", ["completed", "cancelled", "failed", "expired"])
    async def test_whatever_its_end_is_nothing_is_kept(self, street: Street, how: str) -> None:
        await street.host(offer=OFFER)
        job = await submit(street.core, order(street, await put(street)))
        made = MadeFor(keeper_of(job.id), public("att", lease_of(job).id), 1_000, 10)
        blobs = street.core.state(Files).blobs
        scratch = await blobs.begin(owner_id=street.buyer_id, name="scratch", size=0, making=made)
        if how == "completed":
            await complete(street.core, job, finish_reason="stop", usage=Usage())
        elif how == "cancelled":
            await cancel(street.core, job)
        elif how == "failed":
            await fail(street.core, job, code="x", message="x", fault=Fault.BUYER, measured=True)
        else:
            street.clock.advance(seconds=street.core.settings.job_ttl_s + 1)
            await sweep(street.core)
        await street.core.background.drain_tasks()

        assert (job.state, await kept(street)) == (JobState(how), [])
        with pytest.raises(UnknownFile):
            await blobs.find(scratch.id)

    async def test_what_can_not_be_released_now_is_swept_later_and_a_live_job_keeps_its_files(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host(offer=OFFER, slots=2)
        over, live = [await submit(street.core, order(street, await put(street))) for _ in range(2)]
        blobs = street.core.state(Files).blobs

        async def away(*_: object, **__: object) -> None:
            raise Unavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(blobs, "release", away)
            await cancel(street.core, over)
            await street.core.background.drain_tasks()
        at_once = [await sweep_files(street.core), await kept(street)]
        await blobs.keep((await put(street)).id, owner_id=street.buyer_id, keeper=keeper_of(b"n" * 16))
        await blobs.keep((await put(street)).id, owner_id=street.buyer_id, keeper="tender_1")
        street.clock.advance(seconds=SURELY_WRITTEN_MS / 1000)

        swept = [await sweep_files(street.core) for _ in range(2)]

        assert at_once == [0, sorted((keeper_of(over.id), keeper_of(live.id)))]
        assert sum(swept) == 2, "that of the job which is over, and of one that is not there"
        assert await kept(street) == [keeper_of(live.id), "tender_1"]


class TestLostHost:
    async def test_what_it_uploaded_and_did_not_show_goes_and_the_rest_stays(self, street: Street) -> None:
        """The next host needs the room: its buyer's files are full with half an upload of the one before."""
        first, _ = await street.host(offer=OFFER)
        job = await submit(street.core, order(street, await put(street)))
        blobs, lost = street.core.state(Files).blobs, lease_of(job)
        made = MadeFor(keeper_of(job.id), public("att", lost.id), 1_000, 10)
        shown = await blobs.begin(owner_id=street.buyer_id, name="shown", size=0, making=made)
        half = await blobs.begin(owner_id=street.buyer_id, name="half", size=900, making=made)
        artifact = Artifact("shown", public("file", shown.id), 0, hashlib.sha256().hexdigest())
        with pytest.raises(FilesUnseen) as unseen:
            take_frames(street.core, job, 0, [file_frame("", 1, artifact=artifact)])
        await look(street.core, job, unseen.value)
        take_frames(street.core, job, 0, [file_frame("", 1, artifact=artifact)])
        second, _ = await street.host(offer=OFFER)

        await fail(street.core, job, code="x", message="x", fault=Fault.HOST)
        await street.core.background.drain_tasks()

        assert (lost.host_id, lease_of(job).host_id) == (first, second)
        assert {file_id for file_id, maker in await blobs.kept_by(keeper_of(job.id)) if maker} == {shown.id}
        await blobs.collect()
        with pytest.raises(UnknownFile):
            await blobs.find(half.id)
        assert (await blobs.usage(street.buyer_id)).bytes_counted == 5
        await complete(street.core, job, finish_reason="stop", usage=Usage(0, 0))
        await street.core.background.drain_tasks()
        assert ((await blobs.find(shown.id)).complete, await kept(street)) == (True, [])


class TestLease:
    async def test_only_the_lease_in_force_opens_a_job(self, street: Street) -> None:
        host, _ = await street.host(offer=OFFER)
        await street.host()
        job = await submit(street.core, order(street, await put(street)))
        lease = lease_of(job)
        chat = await street.submit()

        work = await leased_work(street.core, host, job.id, lease.id)
        refused = [
            (b"h" * 16, job.id, lease.id),
            (host, job.id, b"l" * 16),
            (host, b"j" * 16, lease.id),
            (lease_of(chat).host_id, chat.id, lease_of(chat).id),
        ]

        assert (work.owner_id, work.keeper, work.maker) == (
            street.buyer_id, keeper_of(job.id), public("att", lease.id),
        )  # fmt: skip
        for asked in refused:
            with pytest.raises(NotYourLease):
                await leased_work(street.core, *asked)

    async def test_who_reads_or_delivers_is_not_silent(self, street: Street) -> None:
        host, _ = await street.host(offer=OFFER)
        job = await submit(street.core, order(street, await put(street)))
        street.clock.advance(seconds=street.core.settings.lease_s - 1)
        await leased_work(street.core, host, job.id, lease_of(job).id)
        street.clock.advance(seconds=street.core.settings.lease_s - 1)

        await sweep(street.core)

        assert job.state is JobState.RUNNING
