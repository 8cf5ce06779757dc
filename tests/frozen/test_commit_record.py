"""What is kept of commits outside the database is read by every later version: notes, files, and signed heads."""

from pathlib import Path

import msgspec

from comptoir.jobs import read_job_note
from comptoir.kit.db import Head, own_record, read_words
from comptoir.kit.db.heads import moved
from comptoir.kit.signing import SigningKey
from comptoir.ledger import Transfer, read_transfer_note
from comptoir.receipts import ReceiptNote, SignedHead, read_receipt_note
from comptoir.receipts.heads import read_head

ID = bytes(range(16))
HASH = bytes(range(32))

FILE = bytes.fromhex(
    "0000004ac35ca54197a565706f6368c410000102030405060708090a0b0c0d0e0f0100c420000102030405060708090a0b0c0d0e0f1011121314"
    "15161718191a1b1c1d1e1fcf000001a229f12800a37768790000003dc087543195a6636f6d6d697402c420000102030405060708090a0b0c0d0e"
    "0f101112131415161718191a1b1c1d1e1fcf000001a229f1280192c4026a61c4026a62"
)
"""An epoch's beginning and one commit of two notes."""

SIGNED = (
    b'{"payload":"eyJyZWNvcmQiOiIwMDAxMDIwMzA0MDUwNjA3MDgwOTBhMGIwYzBkMGUwZiIsImVwb2NoIjoxLCJlbnRyaWVzIjoyLCJoZWFkIjoiMDAwM'
    b'TAyMDMwNDA1MDYwNzA4MDkwYTBiMGMwZDBlMGYxMDExMTIxMzE0MTUxNjE3MTgxOTFhMWIxYzFkMWUxZiIsImF0X21zIjoxNzk2MDAwMDAwMDAyfQ=="'
    b',"payloadType":"application/vnd.comptoir.head.v1+json","signatures":[{"keyid":"139e3940e64b5491722088d9a0d741628fc826e0'
    b'9475d341a780acde3c4b8070","sig":"/DcwllGud9UtqF1uCz8VgxNlhqBz+k8TlanbbcuLAlI5lfxlVpCh5Ogl+P41Yls7BE5RjMaQws4uZRSndqV/Bg'
    b'=="}]}'
)


class TestNotes:
    def test_each_is_read_as_it_was_written(self) -> None:
        assert read_receipt_note(b"r" + ID + HASH) == ReceiptNote(ID, HASH)
        assert read_job_note(b"j" + ID) == ID
        assert read_words(b"wact 1: host.suspend host_00") == "act 1: host.suspend host_00"
        packed = msgspec.msgpack.encode((ID, ID, ID, 77, "deposit", 1_796_000_000_000, None))
        assert read_transfer_note(b"t" + packed) == Transfer(ID, ID, ID, 77, "deposit", None, 1_796_000_000_000, None)

    def test_none_is_read_as_another(self) -> None:
        for note in (b"", b"x", b"r" + ID, b"j", b"t\xff", b"jr" + ID + HASH):
            read = (read_receipt_note(note), read_job_note(note), read_words(note), read_transfer_note(note))
            assert read == (None, None, None, None)


class TestFiles:
    def test_they_are_read_as_they_were_written(self, tmp_path: Path) -> None:
        (tmp_path / "00").mkdir()
        (tmp_path / "00" / "00000007.log").write_bytes(FILE)

        record = own_record(tmp_path, now_ms=0)

        assert (record.record, record.head) == (ID, Head(1, 2, HASH))
        assert (record.began_ms, record.reason, list(record.seen.notes_after(0))) == (
            1_796_000_000_000,
            "why",
            [b"ja", b"jb"],
        )
        record.close()

    def test_a_head_is_computed_as_it_was(self) -> None:
        expected = "4afcf061e2dc0ebd1991154dbff97e688bdbd36820425e587a81c41a38d219a0"
        assert moved(Head(1, 0, HASH), [b"ja", b"jb"]) == Head(1, 2, bytes.fromhex(expected))

    def test_a_signed_head_is_read_as_it_was_signed(self) -> None:
        assert read_head(SIGNED, SigningKey(bytes(32))) == SignedHead(ID.hex(), 1, 2, HASH.hex(), 1_796_000_000_002)
