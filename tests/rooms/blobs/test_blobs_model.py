"""The room of files against a model: whatever is uploaded, made for somebody, deleted, kept, given up, released,
expired and collected by two coordinators in whatever order, and wherever one of them dies between an object and its
row, what the room has is what was asked for.

After every step each file that the model has reads as its bytes, what each owner's files count is their sum, and of
what nothing refers to nothing is left once it was collected.
"""

import hashlib
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, initialize, invariant, multiple, rule

from comptoir.blobs import TABLES, Blob, Blobs, Keeps, MadeFor, MadeTooMuch, QuotaReached, UnknownFile
from comptoir.blobs.service import SURE_MS
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Tx, ddl, open_database
from comptoir.kit.objects import ObjectStore
from tests.machines import LoopMachine, check
from tests.rooms.blobs.conftest import ADA, BOB, LIMITS, room

CONTENTS = [b"", b"a", b"bb", b"ccc"]
"""Few, so that the same comes often."""


class Killed(BaseException):
    """The coordinator is gone at this moment."""


class Dying:
    """A store whose coordinator is killed before or after its next call, if it was told to."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.read = objects.read
        self.dies = ""

    async def _call(self, work: Awaitable[None]) -> None:
        when, self.dies = self.dies, ""
        if when == "before":
            work.close()  # type: ignore[attr-defined]
            raise Killed
        await work
        if when == "after":
            raise Killed

    async def put(self, path: str, data: bytes | bytearray) -> None:
        await self._call(self._objects.put(path, data))

    async def erase(self, place: str) -> None:
        await self._call(self._objects.erase(place))

    async def erase_one(self, path: str) -> None:
        await self._call(self._objects.erase_one(path))


@dataclass
class Known:
    """A file or an upload of the model."""

    owner: bytes
    data: bytes
    expires_ms: int
    came: int = 0
    """Bytes of it that were stored."""
    complete: bool = False
    keepers: set[str] = field(default_factory=set)
    made: bool = False
    """Whether its (only) keeper makes or has made it."""


who = st.sampled_from([0, 1])
"""Which coordinator does it."""

keepers = st.sampled_from(["job_1", "job_2"])


class FilesMachine(LoopMachine):
    """Two coordinators of one post."""

    files = Bundle("files")

    @initialize()
    def open(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.clock = FakeClock()

        async def opened() -> None:
            self.db = open_database(str(self.folder / "comptoir.db"))
            for table in TABLES:
                for statement in ddl(table, self.db.dialect):
                    await self.db.run(lambda tx, s=statement: tx.execute(s))

        self.wait(opened())
        self.rooms: list[Blobs] = []
        self.stores: list[Dying] = []
        for _ in range(2):
            self._start(len(self.rooms))
        self.known: dict[bytes, Known] = {}

    def _start(self, number: int) -> None:
        blobs = room(self.db, self.clock, str(self.folder / "files"))
        store = Dying(blobs._objects)
        blobs._objects = store
        self.rooms[number : number + 1] = [blobs]
        self.stores[number : number + 1] = [store]

    def _do(self, number: int, work: Awaitable[object]) -> bool:
        """Have a coordinator do *work*; False: it died, and was started again."""
        try:
            self.wait(work)
        except Killed:
            self._start(number)
            return False
        self.stores[number].dies = ""
        return True

    def _lives(self, file_id: bytes) -> bool:
        known = self.known.get(file_id)
        return known is not None and known.expires_ms > self.clock.now_ms()

    # -- what is asked -------------------------------------------------------------------------------------------

    @rule(target=files, number=who, owner=st.sampled_from([ADA, BOB]), data=st.sampled_from(CONTENTS))
    def begin(self, number: int, owner: bytes, data: bytes) -> object:
        counted = sum(one.owner == owner for one in self.known.values())
        try:
            blob = self.wait(self.rooms[number].begin(owner_id=owner, name="a", size=len(data)))
        except QuotaReached:
            assert counted == LIMITS.files_per_owner_max
            return multiple()
        lasts_ms = LIMITS.upload_ms if data else LIMITS.kept_ms
        self.known[blob.id] = Known(owner, data, self.clock.now_ms() + lasts_ms, complete=not data)
        return blob.id

    @rule(target=files, number=who, owner=st.sampled_from([ADA, BOB]), data=st.sampled_from(CONTENTS))
    def upload_whole(self, number: int, owner: bytes, data: bytes) -> object:
        file_id = self.begin(number, owner, data)
        if data and file_id in self.known:
            self.append(file_id, number, len(data), "")
        return file_id

    @rule(target=files, number=who, owner=st.sampled_from([ADA, BOB]), data=st.sampled_from(CONTENTS), keeper=keepers)
    def begin_for(self, number: int, owner: bytes, data: bytes, keeper: str) -> object:
        """A job begins to make a file."""
        made = MadeFor(keeper, "att_1", bytes_max=10, files_max=4)
        mine = [one for one in self.known.values() if keeper in one.keepers and one.made]  # All by one maker.
        fits = len(mine) < made.files_max and sum(len(one.data) for one in mine) + len(data) <= made.bytes_max
        if sum(one.owner == owner for one in self.known.values()) == LIMITS.files_per_owner_max:
            return multiple()
        begun = self.rooms[number].begin(owner_id=owner, name="a", size=len(data), making=made)
        try:
            blob = self.wait(begun)
        except MadeTooMuch:
            assert not fits
            return multiple()
        assert fits
        expires_ms = self.clock.now_ms() + (LIMITS.upload_ms if data else LIMITS.kept_ms)
        self.known[blob.id] = Known(owner, data, expires_ms, complete=not data, keepers={keeper}, made=True)
        return blob.id

    @rule(file_id=files, number=who)
    def give_up(self, file_id: bytes, number: int) -> None:
        """Whoever makes it does not go on with it; what is complete stays."""
        known = self.known.get(file_id)
        if known is None or not known.made:
            return
        (keeper,) = known.keepers

        async def give_up() -> bool:
            return await self.rooms[number].give_up(await self.rooms[number].kept(file_id, keeper), keeper)

        assert self.wait(give_up()) is not known.complete
        if not known.complete:
            del self.known[file_id]

    @rule(file_id=files, number=who)
    def late_object(self, file_id: bytes, number: int) -> None:
        """It is written when its upload was given up and erased elsewhere, and its coordinator dies at once."""
        known = self.known.get(file_id)
        if known is None or not self._lives(file_id) or known.complete or known.keepers:
            return
        blobs, other = self.rooms[number], self.rooms[1 - number]

        async def late() -> None:
            upload = blobs.resume(await blobs.find(file_id))
            await other.delete(file_id, owner_id=known.owner)
            await other.collect()
            self.stores[number].dies = "after"
            await blobs.append(upload, known.data[known.came :])

        assert not self._do(number, late())
        del self.known[file_id]
        self._forget_expired()

    @rule(file_id=files, number=who, size=st.integers(1, 3), dies=st.sampled_from(["", "", "before", "after"]))
    def append(self, file_id: bytes, number: int, size: int, dies: str) -> None:
        blobs = self.rooms[number]

        async def more() -> Blob | None:
            try:
                blob = await blobs.find(file_id)
            except UnknownFile:
                return None
            if not blob.complete:
                upload = blobs.resume(blob)
                self.stores[number].dies = dies
                await blobs.append(upload, known.data[blob.stored : blob.stored + size])
                blobs.pause(upload)
            return blob

        known = self.known.get(file_id)
        lives = self._lives(file_id)
        if known is None:
            return
        went_on = lives and not known.complete
        if self._do(number, more()) and went_on:
            known.came = min(known.came + size, len(known.data))
            known.complete = known.came == len(known.data)
            known.expires_ms = self.clock.now_ms() + (LIMITS.kept_ms if known.complete else LIMITS.upload_ms)

    @rule(file_id=files, number=who)
    def delete(self, file_id: bytes, number: int) -> None:
        lives = self._lives(file_id)
        owner = self.known[file_id].owner if lives else ADA
        if not lives:
            with pytest.raises(UnknownFile):
                self.wait(self.rooms[number].delete(file_id, owner_id=owner))
            return
        self.wait(self.rooms[number].delete(file_id, owner_id=owner))
        if self.known[file_id].keepers:
            self.known[file_id].expires_ms = self.clock.now_ms()
        else:
            del self.known[file_id]

    @rule(file_id=files, number=who, keeper=keepers, together=st.booleans())
    def keep(self, file_id: bytes, number: int, keeper: str, together: bool) -> None:
        """Alone, or in the command that writes what needs it."""
        known = self.known.get(file_id)
        if known is None or known.made:
            return
        there = self._lives(file_id) and known.complete

        def command(tx: Tx) -> bool:
            keeps = Keeps.load(tx, [file_id], self.clock.now_ms())
            if has := keeps.has(known.owner, [file_id]):
                keeps.keep(keeper, [file_id])
                keeps.apply(tx)
            return has

        async def alone() -> bool:
            try:
                await self.rooms[number].keep(file_id, owner_id=known.owner, keeper=keeper)
            except UnknownFile:
                return False
            return True

        assert self.wait(self.db.run(command) if together else alone()) is there
        if there:
            known.keepers.add(keeper)

    @rule(number=who, keeper=keepers, wanted=st.sets(st.integers(0, 3)))
    def release(self, number: int, keeper: str, wanted: set[int]) -> None:
        """Its end: of what it made, some is wanted."""
        made = [file_id for file_id, one in self.known.items() if keeper in one.keepers and one.made]
        result = frozenset(file_id for at, file_id in enumerate(made) if at in wanted)
        self.wait(self.rooms[number].release(keeper, wanted=result))
        for file_id, known in self.known.items():
            if keeper in known.keepers:
                known.keepers.discard(keeper)
                if known.made and file_id not in result:
                    known.expires_ms = self.clock.now_ms()
                known.made = False

    @rule(seconds=st.sampled_from([1, 30, 61, 3_601]))
    def wait_a_while(self, seconds: int) -> None:
        self.clock.advance(seconds=seconds)

    @rule(number=who, dies=st.sampled_from(["", "", "before", "after"]))
    def collect(self, number: int, dies: str) -> None:
        self.stores[number].dies = dies
        self._do(number, self.rooms[number].collect())
        self._forget_expired()

    def _forget_expired(self) -> None:
        gone = [one for one, known in self.known.items() if not self._lives(one) and not known.keepers]
        for file_id in gone:
            del self.known[file_id]

    # -- what holds ----------------------------------------------------------------------------------------------

    @invariant()
    def what_is_there_reads_as_it_was_uploaded(self) -> None:
        async def look() -> None:
            blobs = self.rooms[0]
            for file_id, known in self.known.items():
                if self._lives(file_id):
                    blob = await blobs.find(file_id, owner_id=known.owner)
                    assert (blob.stored, blob.complete) == (known.came, known.complete)
                    assert blob.expires_ms == known.expires_ms
                    found = b"".join([chunk async for chunk in blobs.read(blob, 0, blob.stored)])
                    assert found == known.data[: known.came]
                    assert not blob.complete or blob.sha256 == hashlib.sha256(found).digest()
                for keeper in known.keepers:
                    blob = (await blobs.kept(file_id, keeper)).blob
                    kept = [chunk async for chunk in blobs.read(blob, 0, blob.stored)]
                    assert (b"".join(kept), blob.complete) == (known.data[: known.came], known.complete)

        self.wait(look())

    @invariant()
    def what_is_counted_is_the_sum(self) -> None:
        for owner in (ADA, BOB):
            mine = [known for known in self.known.values() if known.owner == owner]
            used = self.wait(self.rooms[0].usage(owner))
            assert (used.bytes_counted, used.files_counted) == (sum(len(one.data) for one in mine), len(mine))

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self._is_clean_in_the_end()
            self.wait(self.db.close())
            self.temporary.cleanup()
        super().teardown()

    def _is_clean_in_the_end(self) -> None:
        """When all has expired and nothing is kept, no row and no object is left, whoever died when."""
        for keeper in ("job_1", "job_2"):
            self.release(0, keeper, set())
        self.clock.advance(seconds=LIMITS.kept_ms / 1000 + 1)
        for _ in range(2):
            self.wait(self.rooms[0].collect())
            self.clock.advance(seconds=SURE_MS / 1000)
        self.wait(self.rooms[1].collect())
        left = list((self.folder / "files").rglob("*"))
        rows = [
            self.wait(self.db.fetch(f"SELECT * FROM {table.name}")) for table in TABLES if table.name != "file_usage"
        ]
        assert left == []
        assert rows == [[]] * len(rows)


@pytest.mark.search
def test_files_are_what_the_model_says() -> None:
    check(FilesMachine, examples=60, steps=30)
