"""The commit record: what was noted is counted in the database and outside it; a database that lost some is caught."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from comptoir.kit.db import (
    COMMIT_HEADS,
    CommitRecord,
    CommitsLost,
    Database,
    Head,
    Table,
    Tx,
    despite_loss,
    own_record,
    record_file,
)
from comptoir.kit.db.heads import BEGINNING, moved
from comptoir.kit.db.record_file import RecordFile
from comptoir.kit.folderlock import FolderTaken
from tests.conftest import MakeDatabase

MARKS = Table("marks", {"id": "int", "note": "text"}, key=("id",))

REWIND = "UPDATE commit_heads SET entries = ?, head = ?"


def noting(*notes: bytes) -> Callable[[Tx], None]:
    """Return a command that confirms *notes*."""

    def command(tx: Tx) -> None:
        tx.notes.extend(notes)

    return command


@dataclass
class Kept:
    """A database whose record is in *folder*; `start` is what a coordinator's start does about it."""

    db: Database
    folder: Path
    opened: RecordFile | None = None

    async def start(self) -> CommitRecord:
        if self.opened is not None:
            self.opened.close()
        self.db.record = None
        self.opened = own_record(self.folder, now_ms=1)
        await self.db.attach(CommitRecord(self.opened, now_ms=lambda: 7))
        assert self.db.record is not None
        return self.db.record

    async def stored(self) -> list[Head]:
        rows = await self.db.fetch("SELECT epoch, entries, head FROM commit_heads")
        return [Head(epoch, entries, bytes(head)) for epoch, entries, head in rows]

    async def rewind(self, to: Head) -> None:
        """Have the database forget, as one that was restored does."""
        with despite_loss():
            await self.db.run(lambda tx: tx.execute(REWIND, (to.entries, to.sha256)))


@pytest.fixture
async def kept(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[Kept]:
    async with make_database((COMMIT_HEADS, MARKS)) as db:
        made = Kept(db, tmp_path / "commits")
        await made.start()
        yield made
    assert made.opened is not None
    made.opened.close()


@pytest.fixture
def files(tmp_path: Path) -> RecordFile:
    """A record's files alone."""
    return own_record(tmp_path / "commits", now_ms=1)


class TestNotes:
    async def test_a_commit_moves_the_head_in_the_database_and_in_the_files(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a", b"b"))
        await kept.db.run(noting(b"c"))

        expected = moved(moved(BEGINNING, [b"a", b"b"]), [b"c"])
        assert expected.entries == 3
        assert await kept.stored() == [expected]
        assert (await kept.start()).head == expected

    async def test_commits_that_confirm_nothing_leave_it(self, kept: Kept) -> None:
        await kept.db.run(lambda tx: tx.insert(MARKS, [(1, "x")]))

        assert await kept.stored() == [BEGINNING]

    async def test_a_command_that_fails_takes_its_notes_along(self, kept: Kept) -> None:
        def fails(tx: Tx) -> None:
            tx.notes.append(b"never")
            raise ValueError

        done = await asyncio.gather(*(kept.db.run(each) for each in (noting(b"a"), fails)), return_exceptions=True)

        assert [type(each) for each in done] == [type(None), ValueError]
        assert await kept.stored() == [moved(BEGINNING, [b"a"])]
        assert kept.db.record is not None and list(kept.db.record.files.seen.notes_after(0)) == [b"a"]


class TestCompare:
    async def test_a_database_that_is_behind_lost_what_the_files_name(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        await kept.db.run(noting(b"b", b"c"))
        await kept.rewind(moved(BEGINNING, [b"a"]))

        record = await kept.start()

        assert kept.db.lost
        (gap,) = record.gaps
        assert (gap.missing, list(gap.notes()), gap.at_start) == (2, [b"b", b"c"], True)

    async def test_a_database_without_the_record_lost_all(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        with despite_loss():
            await kept.db.run(lambda tx: tx.execute("DELETE FROM commit_heads"))

        (gap,) = (await kept.start()).gaps

        assert (gap.theirs, gap.missing, list(gap.notes())) == (None, 1, [b"a"])

    async def test_as_many_others_are_a_loss_too(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        await kept.rewind(moved(BEGINNING, [b"another"]))

        (gap,) = (await kept.start()).gaps

        assert (gap.missing, list(gap.notes())) == (0, [b"a"])

    async def test_a_database_that_is_ahead_is_followed(self, kept: Kept) -> None:
        """The process died, or the machine, between the commit and the file."""
        await kept.db.run(noting(b"a"))
        ahead = moved(moved(BEGINNING, [b"a"]), [b"b"])
        await kept.rewind(ahead)

        record = await kept.start()

        assert not kept.db.lost
        assert record.head == ahead
        await kept.db.run(noting(b"c"))
        assert await kept.stored() == [moved(ahead, [b"c"])]

    async def test_another_folder_is_another_record(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        kept.folder = kept.folder.with_name("other")

        await kept.start()
        await kept.db.run(noting(b"b"))

        assert not kept.db.lost
        assert sorted(await kept.stored()) == sorted([moved(BEGINNING, [b"a"]), moved(BEGINNING, [b"b"])])

    async def test_the_record_of_another_in_the_folder_is_compared_too(self, kept: Kept) -> None:
        """Coordinators that share the folder: one that does not run has nobody else to speak for it."""
        await kept.db.run(noting(b"a"))
        kept.folder.joinpath("00").rename(kept.folder / "07")
        await kept.rewind(BEGINNING)

        (gap,) = (await kept.start()).gaps

        assert list(gap.notes()) == [b"a"]

    async def test_what_another_coordinator_misses_counts_here(self, kept: Kept) -> None:
        with despite_loss():
            await kept.db.run(lambda tx: tx.insert(COMMIT_HEADS, [(bytes(16), *BEGINNING, 1, "", 5)]))

        await kept.db.compare()

        assert kept.db.lost
        assert kept.db.record is not None and kept.db.record.lost_elsewhere == 1

    async def test_a_rewind_under_a_running_process_is_seen_by_its_next_commit(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        await kept.rewind(BEGINNING)

        def command(tx: Tx) -> None:
            tx.insert(MARKS, [(1, "x")])
            tx.notes.append(b"b")

        with pytest.raises(CommitsLost):
            await kept.db.run(command)

        assert await kept.db.fetch("SELECT count(*) FROM marks") == [(0,)]
        assert kept.db.record is not None and [gap.at_start for gap in kept.db.record.gaps] == [False]

    async def test_a_head_that_vanishes_under_a_running_process_is_seen(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        with despite_loss():
            await kept.db.run(lambda tx: tx.execute("DELETE FROM commit_heads"))

        # On PostgreSQL the next commit sees that, and the one after it is refused.
        done = [(await asyncio.gather(kept.db.run(noting(b"b")), return_exceptions=True))[0] for _ in range(2)]

        assert isinstance(done[1], CommitsLost)

    async def test_the_right_database_ends_it(self, kept: Kept) -> None:
        await kept.db.run(noting(b"a"))
        await kept.rewind(BEGINNING)
        await kept.db.compare()
        assert kept.db.lost

        await kept.rewind(moved(BEGINNING, [b"a"]))
        await kept.db.compare()

        assert not kept.db.lost
        await kept.db.run(noting(b"b"))
        assert await kept.db.fetch("SELECT count(*) FROM commit_heads WHERE lost_ms IS NOT NULL") == [(0,)]


class TestLost:
    @pytest.fixture
    async def lost(self, kept: Kept) -> Kept:
        await kept.db.run(noting(b"a"))
        await kept.rewind(BEGINNING)
        await kept.start()
        return kept

    async def test_nothing_is_written_but_what_repairs(self, lost: Kept) -> None:
        with pytest.raises(CommitsLost):
            await lost.db.run(lambda tx: tx.insert(MARKS, [(1, "x")]))
        with pytest.raises(CommitsLost):
            await lost.db.batch(lambda tx, items: items, 1)
        with despite_loss():
            await lost.db.run(lambda tx: (tx.notes.append(b"back"), tx.insert(MARKS, [(2, "y")])))

        assert await lost.db.fetch("SELECT id FROM marks") == [(2,)]
        assert await lost.stored() == [BEGINNING]

    async def test_it_waits_like_for_a_database_that_is_away(self, lost: Kept) -> None:
        waiting = asyncio.ensure_future(lost.db.wait_available())
        await asyncio.sleep(0)
        assert not waiting.done()

        await lost.rewind(moved(BEGINNING, [b"a"]))
        await lost.db.compare()

        await waiting

    async def test_a_new_epoch_ends_it(self, lost: Kept) -> None:
        record = lost.db.record
        assert record is not None

        with despite_loss():
            await lost.db.run(lambda tx: record.begin_epoch(tx, "why"))

        assert not lost.db.lost
        await lost.db.run(noting(b"b"))
        (head,) = await lost.stored()
        assert (head.epoch, head.entries, head == record.head) == (1, 1, True)
        again = await lost.start()
        assert (lost.db.lost, again.head, again.files.reason, again.files.began_ms) == (False, head, "why", 7)
        assert list(again.files.seen.notes_after(0)) == [b"b"]

    async def test_an_epoch_that_the_files_missed_is_followed(self, lost: Kept) -> None:
        """The process died between the commit and the file."""
        with despite_loss():
            await lost.db.run(lambda tx: tx.execute("UPDATE commit_heads SET epoch = 1"))

        record = await lost.start()

        assert not lost.db.lost
        assert record.head.epoch == 1

    async def test_what_another_accepted_for_it_is_followed_where_nothing_was_written_since(self, lost: Kept) -> None:
        """A coordinator that was found behind at its start, and one beside it at which an operator decided."""
        other = own_record(lost.folder.with_name("other"), now_ms=1)
        first = lost.db.record
        assert first is not None
        lost.db.record = None
        await lost.db.attach(CommitRecord(other, now_ms=lambda: 9))
        second = lost.db.record
        assert second is not None and second.lost_elsewhere == 1

        with despite_loss():
            await lost.db.run(lambda tx: second.begin_epoch(tx, "decided there"))
        assert not second.lost
        lost.db.record = first
        await lost.db.compare()

        assert not lost.db.lost
        assert first.head[:2] == (1, 0)
        other.close()

    async def test_where_nothing_is_lost_no_epoch_begins(self, kept: Kept) -> None:
        record = kept.db.record
        assert record is not None

        await kept.db.run(lambda tx: record.begin_epoch(tx, "why"))

        assert await kept.stored() == [BEGINNING]


class TestFiles:
    def test_a_torn_end_is_cut_off(self, files: RecordFile) -> None:
        head = moved(BEGINNING, [b"a"])
        files.append(head, [b"a"], at_ms=1)
        path = next(files.folder.glob("*.log"))
        whole = path.read_bytes()
        files.append(moved(head, [b"b"]), [b"b"], at_ms=1)
        torn = path.read_bytes()
        files.close()

        for size in range(len(whole), len(torn)):
            path.write_bytes(torn[:size])
            again = RecordFile(files.folder, now_ms=1)
            again.append(moved(head, [b"c"]), [b"c"], at_ms=1)
            assert list(again.seen.notes_after(0)) == [b"a", b"c"]
            again.close()

    def test_a_frame_that_was_changed_ends_what_is_believed(self, files: RecordFile) -> None:
        head = moved(BEGINNING, [b"a"])
        files.append(head, [b"a"], at_ms=1)
        files.append(moved(head, [b"b"]), [b"b"], at_ms=1)
        files.close()
        path = next(files.folder.glob("*.log"))
        path.write_bytes(path.read_bytes()[:-1] + b"\0")

        assert RecordFile(files.folder, now_ms=1).head == head

    def test_files_are_bounded_and_the_head_is_not(self, files: RecordFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(record_file, "FILE_BYTES_MAX", 300)
        head = BEGINNING
        for number in range(40):
            note = b"note-%02d" % number
            head = moved(head, [note])
            files.append(head, [note], at_ms=1)
        files.close()

        again = RecordFile(files.folder, now_ms=1)
        assert (again.head, len(list(files.folder.glob("*.log")))) == (head, record_file.FILES_MAX)
        notes = list(again.seen.notes_after(0))
        assert notes == [b"note-%02d" % number for number in range(40 - len(notes), 40)]
        assert list(again.seen.notes_after(38)) == [b"note-38", b"note-39"]

    def test_a_full_disk_costs_names_and_no_commit(
        self, files: RecordFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        heads = [BEGINNING]
        for note in (b"a", b"b", b"c"):
            heads.append(moved(heads[-1], [note]))
        files.append(heads[1], [b"a"], at_ms=1)
        with monkeypatch.context() as full:
            full.setattr("os.pwrite", lambda file, data, at: 3)
            files.append(heads[2], [b"b"], at_ms=1)
            assert "space" in files.unwritten
        files.append(heads[3], [b"c"], at_ms=1)

        assert not files.unwritten
        files.close()
        again = RecordFile(files.folder, now_ms=1)
        assert (again.head, list(again.seen.notes_after(0))) == (heads[3], [b"a", b"c"])
        assert "can't be written" in caplog.text

    def test_processes_that_share_a_folder_have_a_record_each(self, files: RecordFile) -> None:
        second = own_record(files.folder.parent, now_ms=1)
        assert second.record != files.record

        with pytest.raises(FolderTaken):
            RecordFile(files.folder, now_ms=1)
        files.close()

        assert own_record(files.folder.parent, now_ms=1).record == files.record
