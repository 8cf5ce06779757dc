"""The commit record: a running count and hash of what was confirmed, kept in the database and, outside it, in files.

Commands note what they confirm (`Tx.notes`). Each commit with notes moves the record's head in the database by
compare-and-set, in the same transaction, and is then appended to the files. So the database is never behind the files
unless it lost commits, whoever lost them: a standby that was promoted too early, a backup, a write-ahead log cut short.
It may be ahead: the process died between commit and file, or a power cut took the file's end.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from comptoir.kit.db.heads import BEGINNING, COMMIT_HEADS, Head, HeadMove, lacks, moved
from comptoir.kit.db.record_file import RecordFile, RecordSeen, other_records
from comptoir.kit.db.tx import Tx
from comptoir.kit.folderlock import FolderTaken

log = logging.getLogger(__name__)

REASON_CHARS_MAX = 200
"""Longest reason of an epoch."""

CLAIMS_MAX = 64
"""Heads kept that were brought back, the last one of each record."""


class Gap(NamedTuple):
    """Where the database is not where a record is."""

    seen: RecordSeen
    """The record, as its files say."""
    theirs: Head | None
    """Where the database is; None: it does not know the record."""
    at_start: bool
    """It was found when the process started, so nothing in memory is newer than the database."""

    @property
    def behind(self) -> bool:
        """Whether the database is at an earlier point of the same epoch, so that what is missing can be counted."""
        ours, theirs = self.seen.head, self.theirs
        return theirs is not None and theirs.epoch == ours.epoch and theirs.entries < ours.entries

    @property
    def missing(self) -> int:
        """Notes that the database lacks (>= 0); 0: it is elsewhere, and only looking for each one can tell."""
        if self.theirs is None:
            return self.seen.head.entries
        return self.seen.head.entries - self.theirs.entries if self.behind else 0

    def notes(self) -> Iterable[bytes]:
        """Yield what may be missing, oldest first, as far as the files still have it; for any thread."""
        return self.seen.notes_after(self.theirs.entries if self.behind and self.theirs is not None else 0)


class HeadClaim(NamedTuple):
    """A head that was signed here and brought back by somebody, beyond what database and files know."""

    record: bytes
    head: Head


@dataclass(slots=True)
class _Staged:
    """What becomes of the files when the transaction is committed."""

    head: Head | None = None
    notes: Sequence[bytes] = ()
    at_ms: int = 0
    reason: str | None = None
    """Why epochs begin; None: none do."""
    epochs: list[tuple[RecordFile, Head]] = field(default_factory=list)


class CommitRecord:
    """The record of one process. For the writer thread unless noted; attributes may be read by any thread."""

    def __init__(self, files: RecordFile, *, now_ms: Callable[[], int]) -> None:
        self.files = files
        self._now_ms = now_ms
        self._staged = _Staged()
        self.attached = False
        """Whether it was compared and entered; nothing is noted before."""
        self.gaps: tuple[Gap, ...] = ()
        """Of this record, and of others in the same folder."""
        self.lost_elsewhere = 0
        """Other coordinators on this database that miss commits, as they wrote into it."""
        self.claims: tuple[HeadClaim, ...] = ()
        """Heads brought back that are beyond ours."""
        self.lost = False
        """Whether commits are missing: any of the above."""
        self.since_ms = 0
        """When commits were first seen to be missing; 0: none are."""

    @property
    def head(self) -> Head:
        """Where this record is, by its files."""
        return self.files.head

    # -- comparing -----------------------------------------------------------------------------------------------

    def compare(self, tx: Tx) -> None:
        """Compare the database with the files: note what is missing, or that nothing is (any more).

        The first time, the record is entered into the database, and a database that is ahead is followed.
        """
        own, first = self.files.seen, not self.attached
        # Nothing was written since it was opened.
        clean = first or any(gap.at_start for gap in self.gaps if gap.seen.record == own.record)
        # Files before rows: a commit in between makes the database newer, which is as it should be.
        others = other_records(self.files) if first or any(gap.seen.record != own.record for gap in self.gaps) else []
        columns = "record, epoch, entries, head, lost_ms"
        rows = {bytes(row[0]): row for row in tx.fetch(f"SELECT {columns} FROM commit_heads")}
        heads = {record: Head(row[1], row[2], bytes(row[3])) for record, row in rows.items()}
        gaps = [Gap(seen, heads.get(seen.record), True) for seen in others if lacks(heads.get(seen.record), seen.head)]
        theirs = heads.get(own.record)
        if first and theirs is None and own.head == BEGINNING:
            tx.insert(COMMIT_HEADS, [(own.record, *BEGINNING, own.began_ms, "", None)])
        elif clean and theirs is not None and not lacks(theirs, own.head):
            self._staged = _Staged(theirs if theirs != own.head else None, (), self._now_ms())
        elif theirs != own.head:
            # Once it works, nobody else moves its head: one that is ahead is as wrong as one that is behind.
            gaps.insert(0, Gap(own, theirs, clean))
        self.gaps = tuple(gaps)
        known = {own.record, *(gap.seen.record for gap in gaps)}
        self.lost_elsewhere = sum(row[4] is not None for record, row in rows.items() if record not in known)
        self._note_loss()
        mark = self.since_ms if gaps or self.claims else None
        if theirs is not None and (rows[own.record][4] is None) is not (mark is None):
            tx.execute("UPDATE commit_heads SET lost_ms = ? WHERE record = ?", (mark, own.record))

    def claim(self, claims: Iterable[HeadClaim]) -> None:
        """Note heads that are beyond ours, from now on; on the event loop. Bounded by `CLAIMS_MAX`; idempotent."""
        self.claims = tuple({each.record: each for each in (*self.claims, *claims)}.values())[:CLAIMS_MAX]
        self._note_loss()

    def _note_loss(self) -> None:
        """Note whether commits are missing and since when, and say so when that begins or is over."""
        self.lost = bool(self.gaps or self.claims or self.lost_elsewhere)
        if self.lost and not self.since_ms:
            self.since_ms = self._now_ms()
            log.critical("commits that were confirmed are missing from the database: nothing is written any more")
        elif self.since_ms and not self.lost:
            self.since_ms = 0
            log.warning("no commits are missing from the database any more")

    # -- moving --------------------------------------------------------------------------------------------------

    def move(self, notes: Sequence[bytes]) -> HeadMove | None:
        """Return the compare-and-set that goes with a commit of *notes*; None: nothing moves.

        While commits are missing nothing does: what repairs is summed up by the epoch that follows.
        """
        if not notes or self.lost:
            return None
        before = self.files.head
        after = moved(before, notes)
        self._staged = _Staged(after, notes, self._now_ms())
        return HeadMove(self.files.record, before, after)

    def begin_epoch(self, tx: Tx, reason: str) -> None:
        """Accept what is missing, inside a command: every record that misses something begins a new epoch at zero.

        Idempotent: does nothing if nothing is missing. A record that another process writes is left to that one.
        """
        if not self.lost:
            return
        reason = reason[:REASON_CHARS_MAX]
        staged = self._staged = _Staged(at_ms=self._now_ms(), reason=reason)
        rows = {
            bytes(record): (epoch, bytes(head), lost_ms)
            for record, epoch, head, lost_ms in tx.fetch("SELECT record, epoch, head, lost_ms FROM commit_heads")
        }
        folders = {gap.seen.record: gap.seen.folder for gap in self.gaps}
        claimed = {claim.record: claim.head.epoch for claim in self.claims}
        elsewhere = [record for record, row in rows.items() if row[2] is not None]
        for record in dict.fromkeys([*folders, *claimed, *elsewhere]):
            files = self.files if record == self.files.record else None
            if files is None and record in folders:
                try:
                    files = RecordFile(folders[record], now_ms=staged.at_ms)
                except FolderTaken:
                    continue
            epoch, head, _ = rows.get(record, (-1, b"", None))
            if files is not None:
                epoch, head = max(epoch, files.head.epoch), files.head.sha256
            began = _beginning(record, max(epoch, claimed.get(record, -1)) + 1, head, reason)
            if files is not None:
                staged.epochs.append((files, began))
            tx.execute("DELETE FROM commit_heads WHERE record = ?", (record,))
            tx.insert(COMMIT_HEADS, [(record, *began, staged.at_ms, reason, None)])

    def confirm(self) -> None:
        """Write what was committed to the files, before anybody is told."""
        staged, self._staged = self._staged, _Staged()
        if staged.head is not None:
            self.files.append(staged.head, staged.notes, at_ms=staged.at_ms)
        for files, head in staged.epochs:
            files.begin_epoch(head, began_ms=staged.at_ms, reason=staged.reason or "")
            if files is not self.files:
                files.close()
        if staged.reason is not None:
            self.gaps, self.claims, self.lost_elsewhere = (), (), 0
            self._note_loss()

    def mend(self, tx: Tx) -> None:
        """Say in the files again where the record is, inside a command, if the last that was to be written was not."""
        if self.files.unwritten:
            self.files.append(self.files.head, (), at_ms=self._now_ms())

    def drop(self) -> None:
        """Forget what was staged: the transaction was rolled back."""
        staged, self._staged = self._staged, _Staged()
        for files, _ in staged.epochs:
            if files is not self.files:
                files.close()


def _beginning(record: bytes, epoch: int, before: bytes, reason: str) -> Head:
    """Return where an epoch begins; its hash runs over how the last one ended."""
    said = b"%b%d %b%b" % (record, epoch, before, reason.encode())
    return Head(epoch, 0, hashlib.sha256(said).digest())
