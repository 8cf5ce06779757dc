"""A buyer's file reaches the disk whole, however often its connection is cut, or the job says who is to blame."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from comptoir.kinds.files import InputFile
from comptoir.worker.engines.base import EngineError
from comptoir.worker.files import InputRules, calls
from tests.worker.files.conftest import Host, host_of
from tests.worker.files.stores import Answer, FileStore, file_store, sha256, start_of

CONTENT = os.urandom(3 * 1024 * 1024 + 7)


async def refused(host: Host, *inputs: InputFile, left_s: float = 3600.0) -> tuple[str, str]:
    """Fetch the first input and return code and fault of the refusal."""
    with pytest.raises(EngineError) as raised:
        await host.lease(*inputs, left_s=left_s).fetch(0)
    return raised.value.code, raised.value.fault


class TestFetch:
    async def test_it_is_there_once_and_whole(self, host: Host, store: FileStore) -> None:
        store.inputs = [CONTENT, b""]
        files = host.lease()

        (path, fetched), (empty, _) = await files.fetch(0), await files.fetch(1)
        again = await files.fetch(0)

        assert path.read_bytes() == CONTENT and fetched is None and empty.read_bytes() == b""
        assert again == (path, None) and [each for each in store.requests if "inputs/0" in each] == store.requests
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o644, 0o700)

    async def test_it_goes_on_after_each_cut(self, host: Host, store: FileStore) -> None:
        """Also after one within the first bytes: what came is kept, however little it was."""
        store.inputs, store.cuts = [CONTENT], [1, 100_000, 2_000_000, 7]

        path, _ = await host.lease().fetch(0)

        assert path.read_bytes() == CONTENT
        starts = [start_of(each) for each in store.ranges]
        assert len(starts) == 4 and starts == sorted(set(starts)) and starts[0] >= 1

    @pytest.mark.parametrize(
        "answer",
        [(500, "Bug"), (503, "Busy", {"Retry-After": "0"}), (429, "TooManyRequests"), (409, "NotYourLease")],
    )
    async def test_it_is_asked_for_again(self, host: Host, store: FileStore, answer: Answer) -> None:
        """A coordinator that has just started does not know the lease before the host's link is back."""
        store.inputs, store.answers = [CONTENT], [answer, answer]

        path, _ = await host.lease().fetch(0)

        assert path.read_bytes() == CONTENT

    async def test_requests_follow_the_link_to_another_coordinator(self, store: FileStore, folder: Path) -> None:
        """The first one dies in the middle; the worker's link moves to the next, and the transfer with it."""
        async with file_store() as other, host_of(store, folder, others=[other]) as host:
            store.inputs = other.inputs = [CONTENT]
            store.cuts = [1_000_000]
            store.on_request = lambda what: host.addresses.failed() and None
            path, _ = await host.lease().fetch(0)

            assert path.read_bytes() == CONTENT
            assert len(store.requests) == 1 and [start_of(each) >= 1 for each in other.ranges] == [True]

    async def test_an_answer_with_the_whole_begins_again(self, host: Host, store: FileStore) -> None:
        """A proxy on the way need not know ranges."""
        store.inputs, store.cuts, store.knows_ranges = [CONTENT], [1_000_000], False

        path, _ = await host.lease().fetch(0)

        assert path.read_bytes() == CONTENT and store.ranges == []

    async def test_other_bytes_than_the_order_says_are_the_coordinators_fault(
        self, host: Host, store: FileStore
    ) -> None:
        store.inputs = [CONTENT]

        wrong = InputFile("in", "file_0", sha256="0" * 64, size=len(CONTENT))
        short = InputFile("in", "file_0", sha256=sha256(CONTENT), size=len(CONTENT) - 1)

        assert await refused(host, wrong) == ("input_wrong", "coordinator")
        assert await refused(host, short) == ("input_wrong", "coordinator")

    @pytest.mark.parametrize(
        ("answer", "code", "fault"),
        [
            ((404, "UnknownFile"), "file_unknown", "coordinator"),
            ((401, "Unauthorized"), "key_refused", "host"),
            ((302, ""), "coordinator_refused", "coordinator"),
        ],
    )
    async def test_what_a_refusal_means(
        self, host: Host, store: FileStore, answer: Answer, code: str, fault: str
    ) -> None:
        store.inputs, store.answers = [CONTENT], [answer]

        assert await refused(host) == (code, fault)

    async def test_a_lease_that_stays_unknown_is_given_up(
        self, host: Host, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "PATIENCE_S", 0.0)
        store.inputs, store.answers = [CONTENT], [(409, "NotYourLease")] * 2

        assert await refused(host) == ("lease_lost", "coordinator")

    async def test_a_coordinator_out_of_reach_is_tried_until_the_deadline(self, host: Host, store: FileStore) -> None:
        store.inputs, store.answers = [CONTENT], [(503, "Busy")] * 3

        assert await refused(host, left_s=0.0) == ("coordinator_away", "coordinator")

    async def test_a_full_disk_is_nobodys_fault(
        self, host: Host, store: FileStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.inputs = [CONTENT]
        monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=1, f_frsize=4096))

        assert await refused(host) == ("disk_full", "capacity")

    async def test_an_owner_bounds_what_is_taken(self, store: FileStore, folder: Path) -> None:
        store.inputs = [CONTENT, CONTENT]
        async with host_of(store, folder, InputRules(bytes_max=2 * len(CONTENT) - 1)) as host:
            assert await refused(host) == ("inputs_too_large", "capacity")

        assert store.requests == []
