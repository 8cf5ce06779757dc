"""Lost commits: what this coordinator confirmed and the database no longer has, and what an operator does about it.

The commit record (`kit.db.CommitRecord`) says that commits are missing; this verb says which, in the words of the
rooms. Meanwhile nothing is written (`Database.lost`): no work is accepted, no job is resumed or settled. It ends when
the database has everything again, when what was missing was brought back, or when an operator accepts the loss; the
last two begin a new epoch of the record.
"""

import asyncio
import logging
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from comptoir.dispatch.core import Core, State
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.errors import RestartFirst
from comptoir.dispatch.recover import recover
from comptoir.events import LossEnded
from comptoir.jobs import read_job_note
from comptoir.kit.clock import iso_utc
from comptoir.kit.db import (
    BEGINNING,
    COMMIT_HEADS,
    CommitRecord,
    Gap,
    Head,
    HeadClaim,
    RecordSeen,
    despite_loss,
    read_words,
    write_beside,
)
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.ids import public
from comptoir.ledger import Transfer, read_transfer_note
from comptoir.receipts import ReceiptNote, SignedHead, read_receipt_note

log = logging.getLogger(__name__)

T = TypeVar("T")

SIGN_S = 1.0
"""Interval between two signed heads, if something was confirmed meanwhile."""

COMPARE_EVERY = 10
"""Seconds between two comparisons of database and record while the connection stays; a new one is compared at once."""

SAY_EVERY = 60
"""Seconds between two log lines while commits are missing."""

NAMED_MAX = 20
"""Ids in such a line."""

NOTES_MAX = 500_000
"""Missing notes that are looked at, 60 bytes each: more than the record's files have."""

TOGETHER = 1_000
"""Ids looked up in one query."""

CLAIMS_NAME = "brought-heads"
CLAIMS_BYTES_MAX = 256 * 1024


SIGNED_MAX = 100_000
"""Heads signed since the start that are remembered, 100 bytes each: a day of seconds."""


class HeadVerdict(StrEnum):
    """What a head that somebody brings says about this coordinator's record."""

    FOREIGN = "foreign"
    """It is not signed with our own key, or no head."""
    OLD_EPOCH = "old_epoch"
    """It is of an epoch that an operator ended: what was lost then is accepted."""
    KNOWN = "known"
    """We were there: nothing that it counts is missing."""
    LOST = "lost"
    """It says more than we know, or we were never there: folder and database were brought back together."""


class Missing(NamedTuple):
    """What the database lacks, as far as the record's files say; oldest first."""

    transfers: list[Transfer]
    """Postings that belong to no job: deposits, sign-up credit, bonds."""
    receipts: list[ReceiptNote]
    jobs: list[bytes]
    """Ids of accepted jobs that are gone, and whose receipts are not missing too."""
    unnamed: int
    """Further notes that are missing and that no file here names (>= 0)."""
    others: Sequence[str] = ()
    """Users, hosts, keys, invitations and operators' acts, in words: what nobody can prove or post again."""

    @property
    def total(self) -> int:
        """How much is missing."""
        return len(self.transfers) + len(self.receipts) + len(self.jobs) + len(self.others) + self.unnamed

    def names(self, most: int) -> list[str]:
        """Return at most *most* of them by id: transfers first, whose money nobody else can prove."""
        named = [f"{each.kind} {each.id.hex()}" for each in self.transfers[:most]]
        named += [public("rcpt", each.job_id) for each in self.receipts[:most]]
        named += [public("job", job_id) for job_id in self.jobs[:most]]
        return (named + list(self.others[:most]))[:most]


class LostCommits(State):
    """Whether commits are missing, which, and the signed heads that others keep for us."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._signed = b""
        self._signed_at: Head | None = None
        self._unresumed = False
        self._since_start: dict[int, bytes] = {}
        """Hash of each head of this epoch that was signed since the start, by its entries."""
        self._before_start: _Boundaries | None = None
        """All heads before, read from the files when they are first needed."""
        self._start = BEGINNING

    @property
    def is_lost(self) -> bool:
        """Whether commits that were confirmed are missing from the database; costs 0.1 us."""
        return self._core.db.lost

    @property
    def signed_head(self) -> bytes:
        """The newest signed head (at most `SIGNED_HEAD_BYTES_MAX` bytes), at most `SIGN_S` old; it is on disk here, and
        so is what it counts. Empty before the first."""
        return self._signed

    @property
    def _record(self) -> CommitRecord:
        record = self._core.db.record
        assert record is not None, "open_core attaches a record"
        return record

    @property
    def _claims_path(self) -> Path:
        return self._record.files.folder.parent / CLAIMS_NAME

    async def open(self, record: CommitRecord) -> None:
        """Compare *record* with the database, and judge the heads that were brought before; call it once, at start."""
        await self._core.db.attach(record)
        for statement in await asyncio.to_thread(self._kept_claims):
            await self.judge_head(statement)
        self._start = record.head
        self._unresumed = self.is_lost
        if self.is_lost:
            await self.say()
        else:
            await self.sign()

    # -- heads ---------------------------------------------------------------------------------------------------

    async def sign(self) -> None:
        """Sign how far the record is, if it moved, once what it counts is safe on this disk.

        Raises:
            OSError: the disk refuses it, which is logged.
        """
        record = self._record
        head = record.head
        if head == self._signed_at or record.lost or record.files.unwritten:
            return
        said = SignedHead(record.files.record.hex(), *head[:2], head.sha256.hex(), self._core.clock.now_ms())
        statement = self._core.receipts.sign_head(said)
        await asyncio.to_thread(record.files.sync, statement)
        self._signed, self._signed_at = statement, head
        self._since_start[head.entries] = head.sha256
        if len(self._since_start) > SIGNED_MAX:
            del self._since_start[next(iter(self._since_start))]

    async def look_after_files(self) -> None:
        """Sign, and have what could not be written tried again, whether or not there is something new to confirm.

        While the disk refuses, confirming goes on, since hosts have to be paid for what they deliver, but
        `Duty.RECORD` fails: what is confirmed now is missed only by this process, should the database lose it.
        """
        files, duties = self._record.files, self._core.state(Duties)
        if files.unwritten and not self.is_lost and not self._core.db.unavailable:
            with suppress(Unavailable):  # Where the database is on the same disk, it has no room either.
                await self._core.db.run(self._record.mend)
        with suppress(OSError):  # It is logged, and said below.
            await self.sign()
        if why := files.unwritten or files.unsynced:
            duties.failed(Duty.RECORD, why)
        else:
            duties.done(Duty.RECORD)

    async def judge_head(self, statement: bytes) -> HeadVerdict:
        """Judge a head that somebody brings; after `HeadVerdict.LOST` commits count as missing, also after a restart.

        Idempotent. A head of another coordinator of this trading post, which has the same key, is judged by the
        database.

        Raises:
            Unavailable: the database is unavailable.
        """
        said = self._core.receipts.read_head(statement)
        if said is None:
            return HeadVerdict.FOREIGN
        record, theirs = bytes.fromhex(said.record), Head(said.epoch, said.entries, bytes.fromhex(said.head))
        ours, own = self._record.head, record == self._record.files.record
        if not own:
            row = await self._core.db.fetch_point(COMMIT_HEADS, ("epoch", "entries", "head"), (record,))
            ours = Head(row[0], row[1], bytes(row[2])) if row is not None else Head(-1, 0, b"")
        if theirs.epoch < ours.epoch:
            return HeadVerdict.OLD_EPOCH
        if theirs == ours or (theirs[:2] < ours[:2] and not (own and await self._was_never(theirs))):
            return HeadVerdict.KNOWN
        self._record.claim([HeadClaim(record, theirs)])
        await asyncio.to_thread(self._keep_claim, statement)
        return HeadVerdict.LOST

    async def _was_never(self, theirs: Head) -> bool:
        """Tell whether *theirs*, which has fewer entries than we have now, was surely never signed in what we know: a
        head is on disk here before anybody gets it."""
        if theirs.entries > self._start.entries:
            oldest = next(iter(self._since_start), 0) if len(self._since_start) == SIGNED_MAX else 0
            return theirs.entries >= oldest and self._since_start.get(theirs.entries) != theirs.sha256
        if self._before_start is None:
            until = self._start.entries
            self._before_start = await asyncio.to_thread(_Boundaries, self._record.files.seen, until)
        return self._before_start.lack(theirs)

    def _keep_claim(self, statement: bytes) -> None:
        kept = self._kept_claims()
        if statement not in kept and sum(map(len, kept)) + len(statement) < CLAIMS_BYTES_MAX:
            write_beside(self._claims_path, b"".join(each + b"\n" for each in (*kept, statement)))

    def _kept_claims(self) -> list[bytes]:
        return self._claims_path.read_bytes().splitlines() if self._claims_path.exists() else []

    # -- what is missing -----------------------------------------------------------------------------------------

    async def missing(self) -> Missing:
        """Return what the database lacks now; what was brought back since is not in it.

        Raises:
            Unavailable: the database is unavailable.
        """
        record = self._record
        notes: list[bytes] = []
        others: list[str] = []
        counted = 0
        for gap in record.gaps:
            found = await asyncio.to_thread(_first_notes, gap)
            counted += max(0, gap.missing - len(found))
            if gap.missing:  # Where the database only is elsewhere, words can't be looked up in it.
                others += _read(found, read_words)
            notes += found
        own, head = record.files.record, record.head
        for claim in record.claims:
            known = head.entries if (claim.record, claim.head.epoch) == (own, head.epoch) else claim.head.entries
            counted += max(1, claim.head.entries - known)
        transfers = await self._unposted(_read(notes, read_transfer_note))
        receipts = await self._unstored(_read(notes, read_receipt_note))
        ended = {each.job_id for each in receipts}
        jobs = await self._unknown([job_id for job_id in _read(notes, read_job_note) if job_id not in ended])
        return Missing(transfers, receipts, jobs, counted, others)

    async def _unposted(self, transfers: list[Transfer]) -> list[Transfer]:
        left: list[Transfer] = []
        for first in range(0, len(transfers), TOGETHER):
            part = transfers[first : first + TOGETHER]
            posted = await self._core.ledger.posted([each.id for each in part])
            left += [each for each in part if each.id not in posted]
        return left

    async def _unstored(self, receipts: list[ReceiptNote]) -> list[ReceiptNote]:
        left: list[ReceiptNote] = []
        for first in range(0, len(receipts), TOGETHER):
            part = receipts[first : first + TOGETHER]
            stored = await self._core.receipts.stored([each.job_id for each in part])
            left += [each for each in part if stored.get(each.job_id) != each.payload_sha256]
        return left

    async def _unknown(self, job_ids: Sequence[bytes]) -> list[bytes]:
        left: list[bytes] = []
        for first in range(0, len(job_ids), TOGETHER):
            part = job_ids[first : first + TOGETHER]
            known = await self._core.jobs.whereabouts(part)
            left += [each for each in part if each not in known]
        return left

    async def say(self) -> None:
        """Log what is missing."""
        missing = await self.missing()
        names = missing.names(NAMED_MAX)
        more = missing.total - len(names)
        log.critical(
            "%d things that were confirmed are missing from the database, seen at %s: %s%s. No work is taken and nothing is "
            "settled; see 'comptoir recover' and docs/operating.md",
            missing.total,
            iso_utc(self._record.since_ms),
            ", ".join(names) or "none is known by name",
            f" and {more} more" if more and names else "",
        )

    # -- ending it -----------------------------------------------------------------------------------------------

    @property
    def restart_first(self) -> bool:
        """Whether jobs in this process' memory are newer than the database: it has to be restarted before the loss can
        be accepted, or anything brought back."""
        return any(not gap.at_start for gap in self._record.gaps)

    async def accept(self, reason: str) -> None:
        """Begin a new epoch with what the database has, and resume work; what is missing stays missing.

        Idempotent: if nothing is missing, nothing changes.

        Args:
            reason: kept with the epoch; cut at `REASON_CHARS_MAX` characters.

        Raises:
            RestartFirst: it was found while this process ran.
            Unavailable: the database is unavailable.
        """
        if not self.is_lost:
            return
        if self.restart_first:
            raise RestartFirst
        with despite_loss():
            await self._core.db.run(partial(self._record.begin_epoch, reason=reason))
        await asyncio.to_thread(self._claims_path.unlink, missing_ok=True)
        self._since_start, self._before_start, self._start = {}, None, self._record.head
        log.warning("epoch %d of the commit record has begun: %s", self._record.head.epoch, reason)
        await self.sign()
        await self.resume()
        self._core.events.publish(LossEnded())

    async def close_gap(self, reason: str) -> Missing:
        """Begin a new epoch like `accept` if nothing is missing any more; return what still is.

        What other coordinators miss, or only a head that was brought back shows, can't be told from here: it has to be
        accepted.

        Raises:
            RestartFirst: it was found while this process ran. Unavailable: the database is unavailable.
        """
        missing = await self.missing()
        if self.is_lost and not missing.total and not self._record.lost_elsewhere:
            await self.accept(reason)
        return missing

    async def resume(self) -> None:
        """Resume the unfinished jobs, if that had to wait; with several coordinators the search for orphans does it."""
        if self._unresumed and not self.is_lost:
            self._unresumed = False
            if self._core.peers.cluster_status() is None:
                await recover(self._core)
            self._core.events.publish(LossEnded())


class _Boundaries:
    """The heads of an epoch up to *until* entries, as far as the files have them: 16 bytes a commit."""

    def __init__(self, seen: RecordSeen, until: int) -> None:
        self._entries, self._hashes = array("Q"), array("Q")
        for entries, sha256 in seen.boundaries():
            if entries <= until:
                self._entries.append(entries)
                self._hashes.append(_short(sha256))

    def lack(self, head: Head) -> bool:
        """Tell whether *head*, which the files would have if it had been signed here, is not one of them."""
        at = bisect_left(self._entries, head.entries)
        if at < len(self._entries) and self._entries[at] == head.entries:
            return self._hashes[at] != _short(head.sha256)
        return at > 0


def _short(sha256: bytes) -> int:
    return int.from_bytes(sha256[:8], "big")


def _first_notes(gap: Gap) -> list[bytes]:
    return list(islice(gap.notes(), NOTES_MAX))


def _read(notes: Sequence[bytes], reader: Callable[[bytes], T | None]) -> list[T]:
    """Return what *reader* makes of those notes that are its own."""
    return [said for note in notes if (said := reader(note)) is not None]


async def watch_commits(core: Core) -> None:
    """Sign heads, compare record and database, and say what is missing, until cancelled."""
    lost, seconds, said = core.state(LostCommits), 0, core.db.lost
    while True:
        await asyncio.sleep(SIGN_S)
        seconds += 1
        try:
            await lost.look_after_files()
            if seconds % COMPARE_EVERY == 0 and not core.db.unavailable:
                await core.db.compare()
                await lost.resume()
            if lost.is_lost and (not said or seconds % SAY_EVERY == 0):
                await lost.say()
            said = lost.is_lost
        except Unavailable as outage:
            log.debug("the commit record could not be compared: %s", outage)
        except Refusal as refusal:
            log.warning("jobs could not be resumed: %s", refusal)
        except Exception:  # The loop's edge: one bad second must not be the last.
            log.exception("watching over the commit record failed")
            core.state(Duties).failed(Duty.RECORD)
