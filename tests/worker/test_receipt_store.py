"""What a worker keeps is there after kill -9, and bounded."""

import os
from pathlib import Path

import pytest

from comptoir.kit.clock import FakeClock
from comptoir.link import HEADS_MAX, ConfirmedHead, SignedReceipt
from comptoir.worker import receipt_store
from comptoir.worker.receipt_store import ReceiptStore


def job(number: int) -> bytes:
    return number.to_bytes(16, "big")


def receipt(number: int, *, size: int = 50) -> SignedReceipt:
    return SignedReceipt("k" * 64, str(number).encode().ljust(size), b"s" * 64)


def opened(folder: Path) -> ReceiptStore:
    """Open a store as the next process does, whatever became of the last."""
    store = ReceiptStore(folder)
    store.open()
    return store


def kept(store: ReceiptStore) -> list[int]:
    """Return the numbers of the receipts, the newest first, as they are read back."""
    return [int(one.payload) for one in store.read(store.places().values())]


class TestAdd:
    def test_it_is_there_without_a_close(self, tmp_path: Path) -> None:
        first = opened(tmp_path / "receipts")
        first.add(job(1), receipt(1))
        first.add(job(2), receipt(2))

        second = opened(tmp_path / "receipts")
        second.add(job(3), receipt(3))

        assert kept(second) == [3, 2, 1]
        assert list(second.places()) == [job(3), job(2), job(1)]

    @pytest.mark.parametrize("cut", range(1, 8, 3))
    def test_one_half_written_is_cut_off_and_hides_none_after_it(self, tmp_path: Path, cut: int) -> None:
        store = opened(tmp_path)
        store.add(job(1), receipt(1))
        store.add(job(2), receipt(2))
        (path,) = tmp_path.glob("*.log")
        os.truncate(path, path.stat().st_size - cut)

        again = opened(tmp_path)
        again.add(job(3), receipt(3))

        assert kept(again) == [3, 1]

    def test_one_that_the_disk_changed_is_not_handed_in(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        store.add(job(1), receipt(1))
        store.add(job(2), receipt(2))
        (path,) = tmp_path.glob("*.log")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

        assert kept(opened(tmp_path)) == [1]

    def test_nobody_else_may_read_them(self, tmp_path: Path) -> None:
        store = opened(tmp_path / "receipts")
        store.add(job(1), receipt(1))

        assert (tmp_path / "receipts").stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "receipts").glob("*.log"))

    def test_a_receipt_of_no_job_is_not_kept(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        store.add(b"", receipt(1))

        assert kept(store) == []

    def test_a_disk_that_takes_nothing_costs_the_receipt_alone_and_is_said_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = opened(tmp_path)
        store.add(job(1), receipt(1))
        whole = os.write
        with monkeypatch.context() as patch:
            # A full disk takes a part of what is written.
            patch.setattr("os.write", lambda file, data: whole(file, data[:20]))
            store.add(job(2), receipt(2))
            store.add(job(3), receipt(3))
        store.add(job(4), receipt(4))

        assert kept(store) == [4, 1]
        assert sum("can't be kept" in record.message for record in caplog.records) == 1

    def test_a_folder_that_can_not_be_made_keeps_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "receipts").write_bytes(b"")
        store = opened(tmp_path / "receipts")
        store.add(job(1), receipt(1))

        assert kept(store) == []


class TestBounds:
    @pytest.mark.parametrize(
        ("constant", "value", "left"), [("FILE_RECEIPTS_MAX", 3, 7), ("FILE_BYTES_MAX", 500, 6), ("FILES_MAX", 2, 4)]
    )
    def test_the_oldest_go(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str, value: int, left: int
    ) -> None:
        monkeypatch.setattr(receipt_store, "FILES_MAX", 3)
        monkeypatch.setattr(receipt_store, "FILE_RECEIPTS_MAX", 3)
        monkeypatch.setattr(receipt_store, constant, value)
        store = opened(tmp_path)
        for number in range(1, 11):
            store.add(job(number), receipt(number))

        assert kept(store) == list(range(10, 10 - left, -1))
        assert kept(opened(tmp_path)) == list(range(10, 10 - left, -1))

    def test_files_that_are_too_old_go_at_the_next_start(self, tmp_path: Path) -> None:
        clock = FakeClock()
        store = opened(tmp_path)
        store.add(job(1), receipt(1))
        (path,) = tmp_path.glob("*.log")
        written_s = clock.now_ms() / 1000 - receipt_store.KEPT_S - 1
        os.utime(path, (written_s, written_s))

        later = ReceiptStore(tmp_path, clock)
        later.open()

        assert kept(later) == []

    def test_a_file_that_went_since_it_was_listed_costs_its_receipts(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        store.add(job(1), receipt(1))
        places = store.places()
        next(tmp_path.glob("*.log")).unlink()

        assert list(store.read(places.values())) == []


class TestHeads:
    def test_the_newest_of_each_coordinator_is_kept(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        for keeper, statement in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2")):
            store.note_head(ConfirmedHead(keeper, statement))

        assert sorted(opened(tmp_path).heads) == [b"1", b"2"]

    def test_there_are_so_many_at_most(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        for number in range(HEADS_MAX + 3):
            store.note_head(ConfirmedHead(bytes([number]), bytes([number])))

        assert opened(tmp_path).heads == [bytes([number]) for number in range(3, HEADS_MAX + 3)]

    def test_a_broken_file_of_heads_is_as_none(self, tmp_path: Path) -> None:
        opened(tmp_path).note_head(ConfirmedHead(b"a", b"1"))
        (tmp_path / "heads").write_bytes(b"\xff\xff")

        assert opened(tmp_path).heads == []
