"""An artifact reaches the coordinator whole, however often its connection is cut, and its hash is that of its bytes."""

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.files import artifacts, calls
from tests.worker.files.conftest import Host
from tests.worker.files.stores import Answer, FileStore, sha256

CONTENT = os.urandom(3 * 1024 * 1024 + 7)


class Dying(io.BytesIO):
    """A file whose disk fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


async def refused(host: Host, content: io.BytesIO, name: str = "a.bin", left_s: float = 3600.0) -> tuple[str, str]:
    with pytest.raises(EngineError) as raised:
        await host.lease(left_s=left_s).deliver(content, name=name)
    return raised.value.code, raised.value.fault


def only(store: FileStore) -> bytes:
    (upload,) = store.uploads.values()
    return bytes(upload.content)


class Slow(io.BytesIO):
    """A file whose first read takes a while."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.begun.is_set():
            self.begun.set()
            self.goes_on.wait(10)
        return super().read(size)


class TestSource:
    def test_a_read_that_outlives_its_request_spoils_neither_bytes_nor_hash(self) -> None:
        """The request was cut, its read is still under way, and the next request reads the same place: the file was
        delivered whole, under a hash that was not its own."""
        content = Slow(CONTENT)
        source, half = artifacts._Source(content), len(CONTENT) // 2
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(source.read, 0, half)
            content.begun.wait(10)
            second = threads.submit(source.read, 0, half)
            time.sleep(0.01)
            content.goes_on.set()
            assert first.result() == second.result() == CONTENT[:half]
        source.read(half, len(CONTENT) - half)

        assert source.sha256 == sha256(CONTENT)


class TestDeliver:
    @pytest.mark.parametrize("content", [b"", b"x", CONTENT])
    async def test_it_is_there_whole_with_its_name(self, host: Host, store: FileStore, content: bytes) -> None:
        artifact = await host.lease().deliver(io.BytesIO(content), name='é ".mp4', media="video/mp4")

        (file_id, upload), *none = store.uploads.items()
        assert upload.content == content and not none
        assert upload.said == {"filename": 'é ".mp4', "filetype": "video/mp4"}
        assert (artifact.file, artifact.size, artifact.sha256) == (file_id, len(content), sha256(content))
        assert (artifact.name, artifact.media) == ('é ".mp4', "video/mp4")

    async def test_it_begins_where_the_content_is(self, host: Host, store: FileStore) -> None:
        content = io.BytesIO(CONTENT)
        content.seek(1000)

        artifact = await host.lease().deliver(content, name="tail")

        assert only(store) == CONTENT[1000:] and artifact.sha256 == sha256(CONTENT[1000:])

    async def test_it_goes_on_after_each_cut(self, host: Host, store: FileStore) -> None:
        """What has come stays; the hash is of the whole, although parts of it were read twice."""
        store.cuts = [1, 0, 70_000, 1_500_000]

        artifact = await host.lease().deliver(io.BytesIO(CONTENT), name="a.bin")

        assert only(store) == CONTENT and artifact.sha256 == sha256(CONTENT)

    async def test_large_ones_are_sent_in_several_requests(
        self, host: Host, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts, "PATCH_BYTES", 1024 * 1024)

        await host.lease().deliver(io.BytesIO(CONTENT), name="a.bin")

        assert only(store) == CONTENT and sum(each.startswith("PATCH") for each in store.requests) == 4

    @pytest.mark.parametrize("content", [b"", CONTENT])
    async def test_a_lost_reply_begins_no_second_file(self, host: Host, store: FileStore, content: bytes) -> None:
        """It would be counted in the buyer's quota, and never complete."""
        store.lose_replies = 2

        artifact = await host.lease().deliver(io.BytesIO(content), name="a.bin")

        assert only(store) == content and list(store.uploads) == [artifact.file]

    async def test_an_upload_that_is_forgotten_begins_again(self, host: Host, store: FileStore) -> None:
        """A coordinator whose last commits are lost does not know it any more."""
        store.cuts = [100_000]
        store.on_request = lambda what: store.uploads.clear() if what.startswith("HEAD") else None

        artifact = await host.lease().deliver(io.BytesIO(CONTENT), name="a.bin")

        assert only(store) == CONTENT and artifact.sha256 == sha256(CONTENT)

    @pytest.mark.parametrize(
        ("answer", "code", "fault"),
        [
            ((507, "NoRoomForArtifact"), "artifact_refused", "buyer"),
            ((404, "NotFound"), "file_unknown", "coordinator"),
            ((400, "InvalidField"), "coordinator_refused", "coordinator"),
            ((403, "Forbidden"), "key_refused", "host"),
        ],
    )
    async def test_whose_fault_a_refusal_is(
        self, host: Host, store: FileStore, answer: Answer, code: str, fault: str
    ) -> None:
        store.answers = [answer]

        assert await refused(host, io.BytesIO(CONTENT)) == (code, fault)

    @pytest.mark.parametrize("code", ["FilesFull", "StoreFull"])
    async def test_a_trading_post_without_room_is_given_a_while(
        self, host: Host, store: FileStore, monkeypatch: pytest.MonkeyPatch, code: str
    ) -> None:
        store.answers = [(507, code)]
        await host.lease().deliver(io.BytesIO(CONTENT), name="a.bin")
        assert only(store) == CONTENT

        monkeypatch.setattr(calls, "PATIENCE_S", 0.0)
        store.answers = [(507, code)] * 2
        assert await refused(host, io.BytesIO(CONTENT)) == ("store_full", "capacity")

    async def test_a_coordinator_that_stands_still_is_left(
        self, host: Host, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that is stopped (SIGSTOP) keeps its connections open, and takes nothing more."""
        monkeypatch.setattr(artifacts, "SILENCE_S", 0.2)
        store.stands_still = 1

        artifact = await host.lease().deliver(io.BytesIO(CONTENT * 8), name="a.bin")

        assert only(store) == CONTENT * 8 and artifact.sha256 == sha256(CONTENT * 8)

    async def test_an_upload_of_too_many_cuts_begins_again(self, host: Host, store: FileStore) -> None:
        store.on_request = lambda what: (
            store.answers.append((413, "TooManyParts"))
            if what.startswith("PATCH") and len(store.requests) == 2
            else None
        )

        artifact = await host.lease().deliver(io.BytesIO(CONTENT), name="a.bin")

        assert bytes(store.uploads[artifact.file].content) == CONTENT and len(store.uploads) == 2

    @pytest.mark.parametrize("name", ["", "a/b", "a\n", "\0", "x" * 256, "a\\b", "\x9b", "\u202ea", "\udcff"])
    async def test_a_name_that_is_none_is_not_sent(self, host: Host, store: FileStore, name: str) -> None:
        assert await refused(host, io.BytesIO(b"x"), name) == ("artifact_name", "buyer")
        assert store.requests == []

    async def test_a_disk_that_fails_is_the_hosts_fault(self, host: Host) -> None:
        """And is not taken for a connection that broke, and tried until the deadline."""
        assert await refused(host, Dying(CONTENT)) == ("disk", "host")

    async def test_a_coordinator_out_of_reach_is_tried_until_the_deadline(self, host: Host, store: FileStore) -> None:
        store.answers = [(503, "Busy")] * 3

        assert await refused(host, io.BytesIO(CONTENT), left_s=0.0) == ("coordinator_away", "coordinator")
