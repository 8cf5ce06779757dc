"""Lost commits: a database that was brought back without its last ones stops everything until an operator decides."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from comptoir.dispatch.errors import RestartFirst
from comptoir.dispatch.lost_commits import CLAIMS_NAME, HeadVerdict, LostCommits
from comptoir.dispatch.moderate import act_on_host
from comptoir.dispatch.onboard import add_user
from comptoir.identity import InvitedAs, OwnerKind
from comptoir.jobs import JobState
from comptoir.kit.db import CommitsLost, despite_loss
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.moderation import Author, Verb
from comptoir.receipts import SignedHead
from comptoir.receipts.heads import sign_head
from comptoir.reports import audit
from tests.street import Street, finish_well, open_street


def _database(folder: Path) -> Path:
    return folder / "data" / "comptoir.db"


@pytest.fixture
async def rewound(tmp_path: Path) -> AsyncIterator[tuple[Street, bytes, bytes, bytes]]:
    """A post whose database is an older backup: a deposit and an answered job are gone, another runs again.

    With it come the ids of that deposit, that job, and of a job that had a host before the backup.
    """
    async with open_street(tmp_path) as street:
        host_id, line = await street.host(slots=2)
        waiting = await street.submit()
        buyer = street.buyer_id
    shutil.copy(_database(tmp_path), tmp_path / "backup.db")
    async with open_street(tmp_path, buyer=buyer) as street:
        street.link(host_id, line)
        job = await street.submit()
        await finish_well(street.core, job)
        deposit = await street.core.ledger.deposit(owner_id=buyer, amount_uusd=77)
    shutil.copy(tmp_path / "backup.db", _database(tmp_path))
    async with open_street(tmp_path, buyer=buyer) as street:
        yield street, deposit, job.id, waiting.id


class TestMissing:
    async def test_it_is_named(
        self, rewound: tuple[Street, bytes, bytes, bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        street, deposit, job_id, _ = rewound

        missing = await street.core.state(LostCommits).missing()

        assert [(each.id, each.credit_id, each.amount_uusd, each.kind) for each in missing.transfers] == [
            (deposit, street.buyer_id, 77, "deposit")
        ]
        assert [each.job_id for each in missing.receipts] == [job_id]
        assert (missing.jobs, missing.unnamed, missing.total) == ([], 0, 2)
        assert missing.names(10) == [f"deposit {deposit.hex()}", public("rcpt", job_id)]
        await street.core.state(LostCommits).say()
        assert "2 things that were confirmed are missing from the database, seen at 20" in caplog.text
        assert f": deposit {deposit.hex()}, {public('rcpt', job_id)}. No work is taken" in caplog.text

    async def test_what_was_brought_back_is_not_missing_any_more(
        self, rewound: tuple[Street, bytes, bytes, bytes]
    ) -> None:
        street, deposit, *_ = rewound
        lost = street.core.state(LostCommits)

        with despite_loss():
            await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=77, transfer_id=deposit)

        left = await lost.close_gap("brought back")
        assert (left.transfers, len(left.receipts)) == ([], 1)
        assert lost.is_lost, "a receipt is still missing"


class TestLost:
    async def test_no_work_is_taken_and_none_is_resumed(self, rewound: tuple[Street, bytes, bytes, bytes]) -> None:
        street, _, _, waiting = rewound

        with pytest.raises(CommitsLost):
            await street.submit()
        with pytest.raises(CommitsLost):
            await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=1)

        assert list(street.core.jobs.live.all()) == []
        assert (await street.core.jobs.get(waiting)).state == JobState.RUNNING

    async def test_accepting_resumes_work_and_counts_from_zero(
        self, rewound: tuple[Street, bytes, bytes, bytes]
    ) -> None:
        street, _, _, waiting = rewound
        lost = street.core.state(LostCommits)

        await lost.accept("an older backup")
        await lost.accept("again")

        assert not lost.is_lost
        assert (await lost.missing()).total == 0
        assert [job.id for job in street.core.jobs.live.all()] == [waiting]
        record = street.core.db.record
        assert record is not None
        assert (record.head[:2], record.files.reason) == ((1, 0), "an older backup")
        await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=1)
        assert record.head.entries == 1
        assert await audit(street.core.db) == []

    async def test_a_restart_asks_again_until_it_is_accepted(
        self, rewound: tuple[Street, bytes, bytes, bytes], tmp_path: Path
    ) -> None:
        street, *_ = rewound
        await street.core.state(LostCommits).accept("an older backup")
        await street.core.db.close()

        # What was written since is whole: a copy of the folder starts without a question.
        shutil.copytree(tmp_path / "data", tmp_path / "copy" / "data")
        async with open_street(tmp_path / "copy", buyer=street.buyer_id) as again:
            assert not again.core.db.lost


class TestSeenWhileRunning:
    async def test_memory_is_newer_so_a_restart_comes_first(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            _, line = await street.host()
            job = await street.submit()
            with despite_loss():
                await street.core.db.run(lambda tx: tx.execute("UPDATE commit_heads SET entries = 0, head = x''"))

            with pytest.raises(CommitsLost):
                await finish_well(street.core, job)

            assert line.closed == []
            lost = street.core.state(LostCommits)
            assert lost.restart_first
            with pytest.raises(RestartFirst):
                await lost.accept("why")
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            lost = street.core.state(LostCommits)
            assert (lost.is_lost, lost.restart_first) == (True, False)
            await lost.accept("why")
            assert [each.id for each in street.core.jobs.live.all()] == [job.id]


class TestJudgeHead:
    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[tuple[Street, SignedHead, SigningKey]]:
        async with open_street(folder) as street:
            await street.host(slots=4)
            await street.submit()
            record = street.core.db.record
            assert record is not None
            key = SigningKey(bytes.fromhex((folder / "data" / "signing.key").read_text().strip()))
            head = record.head
            yield street, SignedHead(record.files.record.hex(), head.epoch, head.entries, head.sha256.hex(), 1), key

    async def test_verdicts(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as (street, ours, key):
            lost = street.core.state(LostCommits)
            record = street.core.db.record
            assert record is not None
            earlier = lost.signed_head
            await street.submit()
            record_head = record.head
            ours = replace(ours, entries=record_head.entries, head=record_head.sha256.hex())
            table = [
                (sign_head(ours, key), HeadVerdict.KNOWN),
                (earlier, HeadVerdict.KNOWN),
                (sign_head(replace(ours, entries=ours.entries - 1, head="00" * 32), key), HeadVerdict.LOST),
                (sign_head(replace(ours, entries=99), SigningKey(bytes(32))), HeadVerdict.FOREIGN),
                (b"nonsense", HeadVerdict.FOREIGN),
                (sign_head(replace(ours, entries=ours.entries + 1), key), HeadVerdict.LOST),
                (sign_head(replace(ours, head="00" * 32), key), HeadVerdict.LOST),
                (sign_head(replace(ours, epoch=1, entries=0), key), HeadVerdict.LOST),
                (sign_head(replace(ours, record="00" * 16), key), HeadVerdict.LOST),
            ]
            for statement, verdict in table:
                assert await lost.judge_head(statement) is verdict
                assert lost.is_lost is (verdict is HeadVerdict.LOST)
                record.claims = ()
                await street.core.db.compare()

    async def test_a_head_brought_back_stops_work_also_after_a_restart(self, tmp_path: Path) -> None:
        """Folder and database were restored together: only who holds a later head can tell."""
        async with self.opened(tmp_path) as (street, ours, key):
            lost = street.core.state(LostCommits)
            beyond = sign_head(replace(ours, entries=ours.entries + 5), key)
            assert await lost.judge_head(beyond) is HeadVerdict.LOST
            with pytest.raises(CommitsLost):
                await street.submit()
            assert not lost.restart_first
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            lost = street.core.state(LostCommits)
            assert lost.is_lost
            assert (await lost.missing()).unnamed == 5
            assert (await lost.close_gap("nothing named")).total == 5
            assert lost.is_lost

            await lost.accept("restored as a whole")

            assert await lost.judge_head(beyond) is HeadVerdict.OLD_EPOCH
            assert not lost.is_lost
            assert not (tmp_path / "data" / "commits" / CLAIMS_NAME).exists()
            record = street.core.db.record
            assert record is not None and record.head.epoch == 1

    async def test_what_is_signed_is_on_disk_first(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as (street, ours, _):
            lost = street.core.state(LostCommits)
            await lost.sign()
            said = street.core.receipts.read_head(lost.signed_head)
            record = street.core.db.record
            assert said is not None and record is not None
            assert (said.record, said.entries, said.head) == (ours.record, ours.entries, ours.head)
            assert (record.files.folder / "head.json").read_bytes() == lost.signed_head
            before = lost.signed_head
            await lost.sign()
            assert lost.signed_head is before, "nothing was confirmed since"
            record.files.unwritten = "No space left on device"
            await street.submit()
            record.files.unwritten = "No space left on device"
            await lost.sign()
            assert lost.signed_head is before, "what files can't name is not vouched for"

    async def test_a_head_of_before_the_start_is_looked_for_in_the_files(self, tmp_path: Path) -> None:
        """Folder and database were restored together, and newer work has passed the count of a head that comes late."""
        async with self.opened(tmp_path) as (street, ours, key):
            buyer = street.buyer_id
        async with open_street(tmp_path, buyer=buyer) as street:
            await street.core.ledger.deposit(owner_id=buyer, amount_uusd=1)
            lost = street.core.state(LostCommits)

            assert await lost.judge_head(sign_head(ours, key)) is HeadVerdict.KNOWN
            assert await lost.judge_head(sign_head(replace(ours, entries=0, head="00" * 32), key)) is HeadVerdict.KNOWN
            assert await lost.judge_head(sign_head(replace(ours, head="00" * 32), key)) is HeadVerdict.LOST


class TestOthers:
    async def test_a_head_of_another_record_is_judged_by_the_database(self, tmp_path: Path) -> None:
        async with TestJudgeHead().opened(tmp_path) as (street, ours, key):
            lost = street.core.state(LostCommits)
            other = replace(ours, record="11" * 16, entries=5)
            row = "INSERT INTO commit_heads VALUES (?, 0, 5, ?, 1, '', NULL)"
            head = bytes.fromhex(ours.head)
            await street.core.db.run(lambda tx: tx.execute(row, (bytes.fromhex(other.record), head)))

            assert await lost.judge_head(sign_head(other, key)) is HeadVerdict.KNOWN
            assert await lost.judge_head(sign_head(replace(other, entries=6), key)) is HeadVerdict.LOST
            await lost.accept("why")

            rows = await street.core.db.fetch("SELECT epoch, entries FROM commit_heads ORDER BY epoch")
            assert [tuple(each) for each in rows] == [(0, ours.entries), (1, 0)]


class TestNotes:
    async def test_a_job_is_confirmed_when_its_buyer_may_leave(self, tmp_path: Path) -> None:
        """A buyer who stays connected is told nothing before the answer, so that such a job moves the head once."""
        async with open_street(tmp_path) as street:
            record = street.core.db.record
            assert record is not None
            await street.host(slots=2)
            before = record.head.entries

            attached = await street.submit(detached=False)
            assert record.head.entries == before
            await finish_well(street.core, attached)
            assert record.head.entries == before + 1
            await street.submit(detached=True)
            assert record.head.entries == before + 2


class TestInWords:
    async def test_what_else_was_confirmed_is_named_for_people(self, tmp_path: Path) -> None:
        """A host that was suspended serves again, a key that was revoked opens again: somebody has to know."""
        async with open_street(tmp_path) as street:
            buyer = street.buyer_id
        shutil.copy(_database(tmp_path), tmp_path / "backup.db")
        async with open_street(tmp_path, buyer=buyer) as street:
            core = street.core
            host_id, _ = await street.host()
            bob = (await add_user(core, username="bob", email=None, password=None, credit_uusd=0)).user.id
            key = await core.identity.create_key(OwnerKind.USER, buyer)
            await core.identity.revoke_key(key.id, owner_id=buyer)
            author = Author(buyer, "ada")
            await act_on_host(core, Verb.HOST_SUSPEND, host_id, author=author, reason="lies")
            made = await core.identity.invitations.make(invited_as=InvitedAs.HOST, uses=1, days=1, made_by=buyer)
            await core.identity.invitations.revoke(made.invitation.id)
        shutil.copy(tmp_path / "backup.db", _database(tmp_path))

        async with open_street(tmp_path, buyer=buyer) as street:
            missing = await street.core.state(LostCommits).missing()

        expected = [
            f"host {public('host', host_id)}",
            f"user {public('usr', bob)}",
            f"key {key.id.hex()}",
            f"key {key.id.hex()} revoked",
            f"act 1: host.suspend {public('host', host_id)}",
            f"invitation {made.invitation.id.hex()}",
            f"invitation {made.invitation.id.hex()} revoked",
        ]
        assert [each for each in missing.others if each in expected] == expected
        assert (missing.total, missing.unnamed) == (len(missing.others), 0)
