"""The room of files, on both databases and both stores: uploads that go on after anything, files that are stored once,
and bytes that are erased when nothing needs them, and not before."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.blobs import (
    Blob,
    BlobRefusal,
    Blobs,
    ChecksumMismatch,
    FileLinkRefused,
    FilesFull,
    FileTooLarge,
    OffsetMismatch,
    QuotaReached,
    TooManyParts,
    UnknownFile,
    disposition,
    served_media,
    store,
)
from comptoir.blobs.service import SURE_MS
from comptoir.kit.clock import FakeClock
from comptoir.kit.errors import InvalidField, Unavailable
from comptoir.kit.objects import ObjectMissing, StoreAway, StoreFull
from tests.rooms.blobs.conftest import ADA, BOB, LIMITS, Place, content, put, room, sha

MIB = 1 << 20


class TestUpload:
    async def test_parts_make_the_file_that_was_said(self, place: Place) -> None:
        blob = await place.blobs.begin(
            owner_id=ADA, name="a.bin", media="text/csv", size=11, expected=sha(b"hello world")
        )
        upload = place.blobs.resume(blob)

        await place.blobs.append(upload, b"hello ")
        halfway = upload.blob
        await place.blobs.append(upload, b"world")

        found = await place.blobs.find(blob.id, owner_id=ADA)
        assert (halfway.complete, halfway.stored) == (False, 6)
        assert (found.sha256, found.size, found.name, found.media) == (sha(b"hello world"), 11, "a.bin", "text/csv")
        assert await content(place.blobs, found) == b"hello world"

    async def test_another_coordinator_goes_on_with_the_right_hash(self, place: Place) -> None:
        """The running hash is in the memory of the coordinator that had the upload before."""
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=11)
        upload = place.blobs.resume(blob)
        await place.blobs.append(upload, b"hello ")
        other = place.another()

        going_on = other.resume(await other.find(blob.id))
        await other.append(going_on, b"world")

        assert going_on.blob.sha256 == sha(b"hello world")

    async def test_many_last_parts_at_once_hash_it_once(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each would read all that is stored: gigabytes, for one byte that was sent."""
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=11)
        await place.blobs.append(place.blobs.resume(blob), b"hello worl")
        other = place.another()
        reads = []
        read = other.read
        monkeypatch.setattr(other, "read", lambda *asked: reads.append(asked) or read(*asked))
        found = await other.find(blob.id)

        done = await asyncio.gather(
            *(other.append(other.resume(found), b"d") for _ in range(8)), return_exceptions=True
        )

        assert len(reads) == 1
        assert [type(one) for one in done if one is not None] == [OffsetMismatch] * 7
        assert (await other.find(blob.id)).sha256 == sha(b"hello world")

    async def test_an_upload_that_was_paused_is_not_hashed_again(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=11)
        upload = place.blobs.resume(blob)
        await place.blobs.append(upload, b"hello ")
        place.blobs.pause(upload)
        monkeypatch.setattr(place.blobs, "read", None)

        going_on = place.blobs.resume(await place.blobs.find(blob.id))
        await place.blobs.append(going_on, b"world")

        assert going_on.blob.sha256 == sha(b"hello world")

    async def test_of_two_writers_at_one_place_one_is_refused(self, place: Place) -> None:
        """Both would be accepted, and mixed bytes called complete (cases: two writers)."""
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=8)
        first, second = place.blobs.resume(blob), place.another().resume(blob)

        done = await asyncio.gather(
            place.blobs.append(first, b"aaaa"), place.blobs.append(second, b"bbbb"), return_exceptions=True
        )

        (refused,) = [one for one in done if one is not None]
        winner = first if done[0] is None else second
        assert isinstance(refused, OffsetMismatch) and refused.offset == 4
        await place.blobs.append(winner, b"cccc")
        assert await content(place.blobs, winner.blob) == (b"aaaacccc" if winner is first else b"bbbbcccc")
        assert await place.objects() == 2

    async def test_a_finished_upload_takes_nothing_more(self, place: Place) -> None:
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=4)
        first, second = place.blobs.resume(blob), place.another().resume(blob)
        await place.blobs.append(first, b"aaaa")

        with pytest.raises(OffsetMismatch) as refused:
            await place.blobs.append(second, b"bbbb")

        assert refused.value.offset == 4
        assert await content(place.blobs, await place.blobs.find(blob.id)) == b"aaaa"

    async def test_nor_one_whose_bytes_were_there_before(self, place: Place) -> None:
        """It was completed by another, and is where the same bytes were: its second writer was told that it is gone."""
        await place.store_file(b"aaaa")
        blob = await place.blobs.begin(owner_id=ADA, name="b.bin", size=4)
        first, second = place.blobs.resume(blob), place.another().resume(blob)
        await place.blobs.append(first, b"aaaa")

        with pytest.raises(OffsetMismatch) as refused:
            await place.blobs.append(second, b"aaaa")

        assert refused.value.offset == 4

    async def test_nor_one_that_is_completed_while_its_bytes_are_hashed_again(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What its second writer was reading had gone: it was told that the store is away."""
        await place.store_file(b"aaaabbbb")
        blob = await place.blobs.begin(owner_id=ADA, name="b.bin", size=8)
        first, other = place.blobs.resume(blob), place.another()
        await place.blobs.append(first, b"aaaa")
        second, read = other.resume(await other.find(blob.id)), other.read

        async def late(blob: Blob, start: int, end: int) -> AsyncIterator[bytes]:
            await place.blobs.append(first, b"bbbb")
            async for chunk in read(blob, start, end):
                yield chunk

        monkeypatch.setattr(other, "read", late)
        with pytest.raises(OffsetMismatch) as refused:
            await other.append(second, b"bbbb")

        assert refused.value.offset == 8

    async def test_no_bytes_are_a_file_at_once(self, place: Place) -> None:
        """An empty upload would never complete: nobody sends its last byte."""
        blob = await place.blobs.begin(owner_id=ADA, name="empty", size=0)
        again = await place.blobs.begin(owner_id=BOB, name="empty too", size=0)

        assert (blob.sha256, blob.stored, again.sha256) == (sha(b""), 0, sha(b""))
        assert await content(place.blobs, blob) == b""

    async def test_a_size_that_was_not_said_is_counted_as_it_comes(self, place: Place) -> None:
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin")
        upload = place.blobs.resume(blob)

        await place.blobs.append(upload, b"hello ")
        counted = await place.blobs.usage(ADA)
        await place.blobs.append(upload, b"", last=True)

        assert (counted.bytes_counted, counted.files_counted) == (6, 1)
        assert (upload.blob.size, upload.blob.sha256) == (6, sha(b"hello "))

    async def test_bytes_that_are_not_those_that_were_said_are_given_up(self, place: Place) -> None:
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=5, expected=sha(b"hello"))
        upload = place.blobs.resume(blob)

        with pytest.raises(ChecksumMismatch):
            await place.blobs.append(upload, b"hallo")

        with pytest.raises(UnknownFile):
            await place.blobs.find(blob.id)
        assert (await place.blobs.usage(ADA)).bytes_counted == 0
        await place.blobs.collect()
        assert await place.objects() == 0

    async def test_beginning_twice_under_one_id_begins_once(self, place: Place) -> None:
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=5, file_id=b"i" * 16)
        again = await place.blobs.begin(owner_id=ADA, name="a.bin", size=5, file_id=b"i" * 16)

        assert again == blob
        assert (await place.blobs.usage(ADA)).files_counted == 1

    async def test_too_much_is_refused_and_what_was_stored_stays(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "PARTS_MAX", 2)
        small = room(place.db, place.clock, place.address, LIMITS_SMALL)

        async def refused(size: int | None, *parts: bytes) -> type[BlobRefusal]:
            try:
                upload = small.resume(await small.begin(owner_id=ADA, name="a.bin", size=size))
                for part in parts:
                    await small.append(upload, part)
            except BlobRefusal as refusal:
                return type(refusal)
            raise AssertionError("nothing was refused")

        assert await refused(11) is FileTooLarge
        assert await refused(4, b"aa", b"aaa") is FileTooLarge
        assert await refused(None, b"a" * 6, b"a" * 6) is FileTooLarge
        assert await refused(None, b"a", b"a", b"a") is TooManyParts
        assert (await small.usage(ADA)).bytes_counted == 4 + 6 + 2
        assert await place.objects() == 1 + 1 + 2

    @pytest.mark.parametrize(
        "name", ["", "a/b", "a\\b", "..", "a\nb", "a" * 256, "evil\u202egpj.exe", "half \ud800"], ids=ascii
    )
    async def test_what_is_no_name_is_refused(self, tmp_path: Path, name: str) -> None:
        blobs = room(None, None, str(tmp_path))  # type: ignore[arg-type]  # It asks neither.

        with pytest.raises(InvalidField):
            await blobs.begin(owner_id=ADA, name=name, size=1)


LIMITS_SMALL = type(LIMITS)(
    file_bytes_max=10,
    files_bytes_per_owner_max=100,
    files_per_owner_max=50,
    files_bytes_max=150,
    upload_ms=60_000,
    kept_ms=3_600_000,
)


class TestQuota:
    async def test_ten_at_once_do_not_pass_together(self, place: Place) -> None:
        """Each has 60 % of what is free: checked one by one before any is counted, all would pass (cases: quota)."""
        begun = await asyncio.gather(
            *(place.blobs.begin(owner_id=ADA, name="a.bin", size=60 * MIB) for _ in range(10)), return_exceptions=True
        )

        refused = [one for one in begun if isinstance(one, QuotaReached)]
        assert len(refused) == 9
        assert (refused[0].bytes_free, refused[0].files_free) == (40 * MIB, 49)

    async def test_all_owners_together_have_a_limit(self, place: Place) -> None:
        await place.blobs.begin(owner_id=ADA, name="a.bin", size=60 * MIB)
        await place.blobs.begin(owner_id=BOB, name="a.bin", size=60 * MIB)

        with pytest.raises(FilesFull):
            await place.blobs.begin(owner_id=b"c" * 16, name="a.bin", size=60 * MIB)

    async def test_an_abandoned_upload_gives_its_bytes_back(self, place: Place) -> None:
        """Three parts, and nobody comes again: invisible in every list, and counted for ever (cases: abandoned)."""
        upload = place.blobs.resume(await place.blobs.begin(owner_id=ADA, name="a.bin", size=60 * MIB))
        for _ in range(3):
            await place.blobs.append(upload, b"part")
        place.clock.advance(seconds=61)

        with pytest.raises(UnknownFile):
            await place.blobs.find(upload.blob.id)
        assert (await place.blobs.usage(ADA)).bytes_counted == 60 * MIB
        assert await place.another().collect() == (1, 1)

        assert (await place.blobs.usage(ADA)).bytes_counted == 0
        assert await place.objects() == 0

    async def test_an_upload_that_goes_on_is_not_given_up(self, place: Place) -> None:
        upload = place.blobs.resume(await place.blobs.begin(owner_id=ADA, name="a.bin", size=8))
        for _ in range(3):
            place.clock.advance(seconds=50)
            await place.blobs.append(upload, b"12")

        assert await place.blobs.collect() == (0, 0)


class TestContent:
    async def test_the_same_bytes_are_stored_once_for_all(self, place: Place) -> None:
        one, other = await place.store_file(b"same"), await place.store_file(b"same", owner_id=BOB, name="b.bin")
        await place.blobs.collect()
        stored = await place.objects()

        await place.blobs.delete(one.id, owner_id=ADA)
        await place.blobs.collect()

        assert stored == 1
        assert await content(place.blobs, other) == b"same"
        await place.blobs.delete(other.id, owner_id=BOB)
        await place.blobs.collect()
        assert await place.objects() == 0

    async def test_both_owners_are_counted(self, place: Place) -> None:
        """Else one would learn from the count that another has the file."""
        await place.store_file(b"same")
        await place.store_file(b"same", owner_id=BOB)

        counted = [(await place.blobs.usage(owner)).bytes_counted for owner in (ADA, BOB)]
        assert counted == [4, 4]

    async def test_what_comes_while_the_same_is_collected_is_there(self, place: Place) -> None:
        """Found before it is deleted, and referred to after it was: a file without its bytes."""
        for _ in range(8):
            old = await place.store_file(b"same")
            deleting = place.another().delete(old.id, owner_id=ADA)
            coming = [put(blobs, b"same", owner_id=BOB) for blobs in (place.blobs, place.another())]

            *_, new, twin = await asyncio.gather(deleting, place.blobs.collect(), *coming)
            await place.blobs.collect()

            assert await content(place.blobs, await place.blobs.find(new.id)) == b"same"
            await place.blobs.delete(new.id, owner_id=BOB)
            await place.blobs.delete(twin.id, owner_id=BOB)

    async def test_anothers_file_is_unknown(self, place: Place) -> None:
        blob = await place.store_file(b"mine")

        for asked in (place.blobs.find, place.blobs.delete):
            with pytest.raises(UnknownFile):
                await asked(blob.id, owner_id=BOB)

    async def test_an_expired_file_is_unknown_and_its_bytes_go(self, place: Place) -> None:
        blob = await place.store_file(b"old")
        place.clock.advance(seconds=3_601)

        with pytest.raises(UnknownFile):
            await place.blobs.find(blob.id)
        assert await place.blobs.page(ADA, limit=10) == []
        await place.blobs.collect()
        assert await place.objects() == 0

    async def test_pages_are_newest_first(self, place: Place) -> None:
        made = [await place.store_file(b"%d" % n, name=f"{n}.bin") for n in range(5)]
        await place.blobs.begin(owner_id=ADA, name="unfinished", size=10)

        first = await place.blobs.page(ADA, limit=3)
        rest = await place.blobs.page(ADA, limit=3, before=first[-1].id)

        assert [blob.id for blob in first + rest] == [blob.id for blob in reversed(made)]

    async def test_any_range_is_read_over_the_parts(self, place: Place) -> None:
        data = bytes(range(200))
        upload = place.blobs.resume(await place.blobs.begin(owner_id=ADA, name="a.bin", size=200))
        for start in range(0, 200, 3):
            await place.blobs.append(upload, data[start : start + 3])

        for start, end in ((0, 1), (2, 4), (0, 200), (199, 200), (3, 198), (7, 7)):
            found = b"".join([chunk async for chunk in place.blobs.read(upload.blob, start, end)])
            assert found == data[start:end]


class TestKeep:
    async def test_what_is_needed_stays_until_it_is_released(self, place: Place) -> None:
        """A live job reads its input though the buyer deletes it."""
        blob = await place.store_file(b"input")
        await place.blobs.keep(blob.id, owner_id=ADA, keeper="job_1")
        await place.blobs.keep(blob.id, owner_id=ADA, keeper="job_1")
        await place.blobs.keep(blob.id, owner_id=ADA, keeper="job_2")

        await place.blobs.delete(blob.id, owner_id=ADA)
        await place.blobs.release("job_1")
        place.clock.advance(seconds=1)
        await place.blobs.collect()

        with pytest.raises(UnknownFile):
            await place.blobs.find(blob.id)
        assert await content(place.blobs, blob) == b"input"
        assert (await place.blobs.usage(ADA)).files_counted == 1
        await place.blobs.release("job_2")
        await place.blobs.collect()
        assert (await place.blobs.usage(ADA)).files_counted == 0
        assert await place.objects() == 0

    async def test_a_deleted_or_unfinished_file_is_not_kept(self, place: Place) -> None:
        unfinished = await place.blobs.begin(owner_id=ADA, name="a.bin", size=8)
        deleted = await place.store_file(b"x")
        await place.blobs.delete(deleted.id, owner_id=ADA)

        for blob in (unfinished, deleted):
            with pytest.raises(UnknownFile):
                await place.blobs.keep(blob.id, owner_id=ADA, keeper="job_1")


class TestStore:
    async def test_an_object_that_comes_late_is_erased_too(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Deleted at another coordinator while a part is being written here, and this one dies before it can erase
        it."""
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=8)
        upload = place.blobs.resume(blob)

        async def dies(path: str) -> None:
            raise StoreAway("erase", "killed")

        await place.another().delete(blob.id, owner_id=ADA)
        await place.blobs.collect()
        monkeypatch.setattr(place.blobs._objects, "erase_one", dies)
        with pytest.raises(StoreAway):
            await place.blobs.append(upload, b"late")
        left = await place.objects()
        place.clock.advance(seconds=SURE_MS / 1000)
        swept = [await place.another().collect() for _ in range(2)]

        assert left == 1
        assert swept == [(0, 1), (0, 0)]
        assert await place.objects() == 0

    async def test_a_store_that_is_away_loses_nothing(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        upload = place.blobs.resume(await place.blobs.begin(owner_id=ADA, name="a.bin", size=8))
        await place.blobs.append(upload, b"1234")
        gone = await place.store_file(b"gone")
        await place.blobs.delete(gone.id, owner_id=ADA)

        async def away(*args: object) -> None:
            raise StoreAway("write a file's bytes", "no route")

        with monkeypatch.context() as patch:
            for call in ("put", "erase"):
                patch.setattr(place.blobs._objects, call, away)
            for asked in (place.blobs.append(upload, b"5678"), place.blobs.collect()):
                with pytest.raises(Unavailable):
                    await asked

        upload = place.blobs.resume(await place.blobs.find(upload.blob.id))
        await place.blobs.append(upload, b"5678")
        assert upload.blob.sha256 == sha(b"12345678")
        assert await place.blobs.collect() == (0, 1)
        assert await place.objects() == 2

    async def test_bytes_that_are_not_there_are_said_to_be_missing(self, place: Place) -> None:
        """Coordinators with a folder each: one has what another stored only in its database."""
        blob = await place.store_file(b"elsewhere")
        await place.blobs._objects.erase(blob.place.hex())

        with pytest.raises(ObjectMissing):
            await content(place.blobs, blob)


def sizes(folder: Path) -> list[int]:
    """Return the sizes of all files below *folder*."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("place", ["sqlite-folder"], indirect=True)
class TestFolder:
    async def test_a_full_disk_is_said_and_nothing_of_the_object_is_left(self, place: Place) -> None:
        """A file may have no more bytes than the limit of this process: the kernel answers as for a full disk."""
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=4 * MIB)
        upload = place.blobs.resume(blob)
        await place.blobs.append(upload, b"1" * MIB)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
        try:
            with pytest.raises(StoreFull):
                await place.blobs.append(upload, b"2" * (3 * MIB))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        files = sizes(Path(place.address))
        upload = place.blobs.resume(await place.blobs.find(blob.id))
        await place.blobs.append(upload, b"2" * (3 * MIB))

        assert files == [MIB]
        assert upload.blob.complete

    async def test_what_a_killed_coordinator_began_to_write_goes_with_the_rest(self, place: Place) -> None:
        """The store's own lists leave it out."""
        blob = await place.blobs.begin(owner_id=ADA, name="a.bin", size=8)
        await place.blobs.append(place.blobs.resume(blob), b"1234")
        half = Path(place.address) / blob.place.hex() / f"{'0' * 32}#1"
        half.write_bytes(b"56")

        await place.blobs.delete(blob.id, owner_id=ADA)
        await place.blobs.collect()

        assert not half.exists()


class TestLinks:
    @pytest.fixture
    def blobs(self, tmp_path: Path, clock: FakeClock) -> Blobs:
        """A room that is not asked for its database."""
        return room(None, clock, str(tmp_path))  # type: ignore[arg-type]

    def signed(self, blobs: Blobs, *, expires_ms: int | None = None) -> tuple[int, str]:
        blob = Blob(b"i" * 16, ADA, b"p" * 16, "a", "", 1, 1, 1, sha(b"a"), None, 0, expires_ms)
        return blobs.sign(blob, lasts_s=60)

    def test_it_holds_for_one_file_until_its_time(self, blobs: Blobs, clock: FakeClock) -> None:
        until_ms, signature = self.signed(blobs)
        blobs.check(b"i" * 16, until_ms=until_ms, signature=signature)

        for file_id, until, given in (
            (b"j" * 16, until_ms, signature),
            (b"i" * 16, until_ms + 1, signature),
            (b"i" * 16, until_ms, signature.upper()),
            (b"i" * 16, until_ms, "é"),
        ):
            with pytest.raises(FileLinkRefused, match="not signed here"):
                blobs.check(file_id, until_ms=until, signature=given)
        clock.advance(seconds=60)
        with pytest.raises(FileLinkRefused, match="expired"):
            blobs.check(b"i" * 16, until_ms=until_ms, signature=signature)

    def test_it_does_not_outlive_its_file(self, blobs: Blobs, clock: FakeClock) -> None:
        assert self.signed(blobs, expires_ms=clock.now_ms() + 5)[0] == clock.now_ms() + 5


class TestNames:
    @pytest.mark.parametrize(
        ("name", "header"),
        [
            ("a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
            ('é".txt', "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%A9%22.txt"),
            ("100%;x", "attachment; filename=\"100_;x\"; filename*=UTF-8''100%25%3Bx"),
        ],
    )
    def test_a_name_is_sent_as_it_is(self, name: str, header: str) -> None:
        assert disposition(name) == header

    @pytest.mark.parametrize("media", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "", "x/y"])
    def test_what_may_run_in_a_page_is_bytes_without_a_type(self, media: str) -> None:
        assert served_media(media) == "application/octet-stream"

    def test_what_can_be_played_is_sent_as_what_it_is(self) -> None:
        assert served_media("Audio/MPEG") == "audio/mpeg"
