"""Frames that name files: what a host says was made has to be what it uploaded under its lease, or it is to blame."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.blobs import Blob, MadeFor, UnknownFile
from comptoir.dispatch.artifacts import FilesUnseen, look
from comptoir.dispatch.errors import BadFrame
from comptoir.dispatch.files import Files
from comptoir.dispatch.job_files import keeper_of
from comptoir.dispatch.stream import complete, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, LiveJob
from comptoir.kinds.files import Artifact, artifacts_in, file_frame
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import public
from comptoir.link import Frame, Frames, ModelOffer, Usage
from comptoir.transports.link.session import Session
from tests.dispatch.continuing import lease_of
from tests.rooms.blobs.conftest import sha
from tests.street import Street, open_street
from tests.working import OFFER as SAID
from tests.working import TARGET, Work

OFFER = ModelOffer("smith", [Work.name], prices=SAID["prices"], can_continue=True)


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    """A house that sells work on files."""
    async with open_street(tmp_path, kinds=(TARGET,)) as opened:
        yield opened


async def buy(street: Street) -> LiveJob:
    order = Order(street.buyer_id, "test", Work.name, "smith", b'{"inputs":[]}', 10, True)
    return await submit(street.core, order)


async def upload(
    street: Street, job: LiveJob, data: bytes = b"made", *, upto: int | None = None, **but: Any
) -> Artifact:
    """Upload an artifact under the job's lease, or *upto* so many bytes of it; return what a frame says of it."""
    blobs = street.core.state(Files).blobs
    made = MadeFor(keeper_of(job.id), public("att", lease_of(job).id), 1_000, 10)
    blob = await blobs.begin(owner_id=job.owner_id, name="a.txt", size=len(data), making=replace(made, **but))
    if data[:upto]:
        await blobs.append(blobs.resume(blob), data[:upto])
    return said(blob, data)


def said(blob: Blob, data: bytes = b"made", **but: Any) -> Artifact:
    made = Artifact(blob.name, public("file", blob.id), len(data), sha(data).hex())
    return msgspec.structs.replace(made, **but)


async def take(street: Street, job: LiveJob, *frames: Frame) -> None:
    """Have frames taken as a transport does."""
    try:
        take_frames(street.core, job, len(job.frames), list(frames))
    except FilesUnseen as unseen:
        await look(street.core, job, unseen)
        take_frames(street.core, job, len(job.frames), list(frames))


class TestTaken:
    async def test_what_was_uploaded_is_taken_and_counts(self, street: Street) -> None:
        await street.host(offer=OFFER)
        job = await buy(street)
        one, two = await upload(street, job), await upload(street, job, b"")

        await take(street, job, file_frame("log\n"), file_frame("", 2, artifact=one))
        await take(street, job, file_frame("", 1, artifact=two))

        assert (artifacts_in(job.frames), job.count) == ([one, two], 3)

    async def test_frames_without_files_ask_nobody(self, street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
        await street.host(offer=OFFER)
        job = await buy(street)
        monkeypatch.setattr(street.core.db, "_read_by_key", None)

        take_frames(street.core, job, 0, [file_frame("log\n", stream="stdout"), Frame("more")])

        assert len(job.frames) == 2

    async def test_any_lie_is_refused_and_nothing_is_taken(self, street: Street) -> None:
        await street.host(offer=OFFER)
        job = await buy(street)
        true = await upload(street, job)
        lies = [
            msgspec.structs.replace(true, size=5),
            msgspec.structs.replace(true, sha256="0" * 64),
            msgspec.structs.replace(true, name="b.txt"),
            msgspec.structs.replace(true, file="file_" + "0" * 32),
            msgspec.structs.replace(true, file="no file"),
            await upload(street, job, upto=2),
            await upload(street, job, maker="att_" + "0" * 32),
            await upload(street, job, keeper="job_" + "0" * 32),
        ]

        for lie in lies:
            with pytest.raises(BadFrame):
                await take(street, job, file_frame("good", 1), file_frame("", 1, artifact=lie))
        with pytest.raises(BadFrame, match="twice"):
            await take(street, job, *[file_frame("", 1, artifact=true)] * 2)
        assert job.frames == []
        await take(street, job, file_frame("", 1, artifact=true))
        with pytest.raises(BadFrame, match="twice"):
            await take(street, job, file_frame("", 1, artifact=true))

    async def test_an_input_of_the_job_is_nothing_that_it_made(self, street: Street) -> None:
        await street.host(offer=OFFER)
        blobs = street.core.state(Files).blobs
        blob = await blobs.begin(owner_id=street.buyer_id, name="a.txt", size=0)
        body = b'{"inputs":[{"file":"%b"}]}' % public("file", blob.id).encode()
        job = await submit(street.core, Order(street.buyer_id, "test", Work.name, "smith", body, 10, True))

        with pytest.raises(BadFrame):
            await take(street, job, file_frame("", 1, artifact=said(blob, b"")))

    async def test_one_that_its_buyer_deleted_meanwhile_is_no_lie(self, street: Street) -> None:
        await street.host(offer=OFFER)
        job = await buy(street)
        made = await upload(street, job)
        await street.core.state(Files).blobs.delete(bytes.fromhex(made.file[5:]), owner_id=street.buyer_id)

        await take(street, job, file_frame("", 1, artifact=made))

        assert artifacts_in(job.frames) == [made]

    async def test_the_next_host_can_not_name_what_the_one_before_it_made(self, street: Street) -> None:
        first, _ = await street.host(offer=OFFER)
        job = await buy(street)
        named, other = await upload(street, job), await upload(street, job)
        await take(street, job, file_frame("", 1, artifact=named))
        session = Session(street.core, street.core.fleet.get(first), None)  # type: ignore[arg-type]
        await street.host(offer=OFFER)
        session._act(Frames(lease_of(job).id, 1, [Frame("bad", 1, b"[]")]))
        await street.core.background.drain_tasks()

        for lie in (named, other):
            with pytest.raises(BadFrame):
                await take(street, job, file_frame("", 1, artifact=lie))


class TestRestart:
    async def test_a_coordinator_that_knows_nothing_takes_the_frames_that_are_sent_again(self, tmp_path: Path) -> None:
        """What it knew of uploads died with it, and the worker sends all again."""
        async with open_street(tmp_path, kinds=(TARGET,)) as street:
            await street.host(offer=OFFER)
            buyer, job = street.buyer_id, await buy(street)
            named, scratch = await upload(street, job), await upload(street, job, b"scratch")
            frame = file_frame("", 1, artifact=named)
            await take(street, job, frame)

        async with open_street(tmp_path, kinds=(TARGET,), buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None and revived.frames == []
            with pytest.raises(BadFrame):
                await take(street, revived, file_frame("", 1, artifact=msgspec.structs.replace(named, size=9)))
            await take(street, revived, frame)
            await complete(street.core, revived, finish_reason="stop", usage=Usage(0, 1))
            await street.core.background.drain_tasks()

            blobs = street.core.state(Files).blobs
            assert (revived.state, revived.cost_uusd) == (JobState.COMPLETED, 1_000)
            assert (await blobs.find(bytes.fromhex(named.file[5:]))).complete
            with pytest.raises(UnknownFile):
                await blobs.find(bytes.fromhex(scratch.file[5:]))


@dataclass
class Linked:
    """A linked host with a job."""

    street: Street
    session: Session
    job: LiveJob

    async def send(self, *frames: Frame, seq: int) -> None:
        waits = self.session._act(Frames(lease_of(self.job).id, seq, list(frames)))
        if waits is not None:
            await waits


class TestOverTheLink:
    @pytest.fixture
    async def linked(self, street: Street) -> Linked:
        host, _ = await street.host(offer=OFFER)
        session = Session(street.core, street.core.fleet.get(host), None)  # type: ignore[arg-type]
        return Linked(street, session, await buy(street))

    async def test_it_is_looked_for_before_the_next_message_is_read(self, linked: Linked) -> None:
        made = await upload(linked.street, linked.job)

        await linked.send(file_frame("", 1, artifact=made), seq=0)
        await linked.send(file_frame("log"), seq=1)

        assert artifacts_in(linked.job.frames) == [made]
        assert len(linked.job.frames) == 2

    async def test_a_lie_ends_the_attempt_as_its_hosts_fault(self, linked: Linked) -> None:
        made = await upload(linked.street, linked.job)
        lease = lease_of(linked.job)

        await linked.send(file_frame("", 1, artifact=msgspec.structs.replace(made, size=9)), seq=0)
        await linked.street.core.background.drain_tasks()

        (attempt,) = await linked.street.core.jobs.attempts(linked.job.id)
        assert (attempt.id, attempt.fault, linked.job.frames) == (lease.id, "host", [])

    async def test_what_can_not_be_looked_for_waits_for_the_database(
        self, linked: Linked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await upload(linked.street, linked.job)
        blobs, asked = linked.street.core.state(Files).blobs, list[bool]()
        kept_among = blobs.kept_among

        async def away(*args: Any) -> Any:
            asked.append(True)
            if len(asked) == 1:
                raise Unavailable("away")
            return await kept_among(*args)

        monkeypatch.setattr(blobs, "kept_among", away)

        async with asyncio.timeout(20):
            await linked.send(file_frame("", 1, artifact=made), seq=0)

        assert (len(asked), artifacts_in(linked.job.frames)) == (2, [made])

    async def test_of_a_lease_that_ends_meanwhile_nothing_is_taken(self, linked: Linked) -> None:
        made = await upload(linked.street, linked.job)
        waits = linked.session._act(Frames(lease_of(linked.job).id, 0, [file_frame("", 1, artifact=made)]))
        assert waits is not None
        frames_fault = linked.session._act(Frames(lease_of(linked.job).id, 0, [Frame("bad", 1, b"[]")]))
        assert frames_fault is None
        await linked.street.core.background.drain_tasks()

        await waits

        assert linked.job.state in (JobState.QUEUED, JobState.FAILED)
        assert linked.job.frames == []
