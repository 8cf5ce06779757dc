"""Files that are made for a keeper: limits of its own, and what becomes of them when it is done."""

import asyncio

import pytest

from comptoir.blobs import (
    Blob,
    MadeFor,
    MadeTooMuch,
    UnknownFile,
)
from tests.rooms.blobs.conftest import ADA, Place


class TestMadeFor:
    async def test_what_is_made_for_one_keeper_has_a_limit_of_its_own(self, place: Place) -> None:
        async def begin(size: int, keeper: str = "job_1") -> type[Exception] | None:
            made = MadeFor(keeper, "att_1", bytes_max=10, files_max=3)
            try:
                await place.blobs.begin(owner_id=ADA, name="a", size=size, making=made)
            except MadeTooMuch as refusal:
                return type(refusal)
            return None

        told = [await begin(11), await begin(8), await begin(3), await begin(2), await begin(0), await begin(0)]

        assert told == [MadeTooMuch, None, MadeTooMuch, None, None, MadeTooMuch]
        assert await begin(10, "job_2") is None
        assert (await place.blobs.usage(ADA)).bytes_counted == 20

    async def test_ten_at_once_do_not_pass_together(self, place: Place) -> None:
        made = MadeFor("job_1", "att_1", bytes_max=10, files_max=100)
        beginning = [
            blobs.begin(owner_id=ADA, name="a", size=6, making=made) for blobs in (place.blobs, place.another()) * 5
        ]

        done = await asyncio.gather(*beginning, return_exceptions=True)

        assert sorted(type(one).__name__ for one in done) == ["Blob", *["MadeTooMuch"] * 9]

    async def test_at_the_end_what_is_wanted_stays_and_the_rest_is_gone_at_once(self, place: Place) -> None:
        made = MadeFor("job_1", "att_1", bytes_max=100, files_max=10)
        wanted, scratch, half = [
            await place.blobs.begin(owner_id=ADA, name="a", size=size, making=made) for size in (3, 3, 9)
        ]
        for blob in (wanted, scratch):
            await place.blobs.append(place.blobs.resume(blob), blob.id[-3:])

        await place.blobs.release("job_1", wanted=frozenset((wanted.id,)))

        assert (await place.blobs.find(wanted.id)).complete
        for blob in (scratch, half):
            with pytest.raises(UnknownFile):
                await place.blobs.find(blob.id)
        assert await place.blobs.collect() == (2, 2)
        assert (await place.blobs.usage(ADA)).bytes_counted == 3

    async def test_the_end_of_one_maker_leaves_what_others_made_and_is_wanted(self, place: Place) -> None:
        async def begin(maker: str, size: int) -> Blob:
            made = MadeFor("job_1", maker, bytes_max=10, files_max=10)
            return await place.blobs.begin(owner_id=ADA, name="a", size=size, making=made)

        shown, hidden, half = await begin("att_1", 0), await begin("att_1", 0), await begin("att_1", 10)
        given = await place.store_file(b"input")
        await place.blobs.keep(given.id, owner_id=ADA, keeper="job_1")
        other = await begin("att_2", 10)

        await place.blobs.release("job_1", wanted=frozenset((shown.id,)), maker="att_1")

        kept = {file_id for file_id, _ in await place.blobs.kept_by("job_1")}
        assert kept == {shown.id, given.id, other.id}
        assert (await place.blobs.collect())[0] == 2
        for gone in (hidden, half):
            with pytest.raises(UnknownFile):
                await place.blobs.find(gone.id)

    async def test_only_what_is_not_complete_is_given_up(self, place: Place) -> None:
        made = MadeFor("job_1", "att_1", bytes_max=100, files_max=10)
        half = await place.blobs.begin(owner_id=ADA, name="a", size=9, making=made)
        whole = await place.blobs.begin(owner_id=ADA, name="b", size=0, making=made)

        told = [await place.blobs.give_up(await place.blobs.kept(blob.id, "job_1"), "job_1") for blob in (half, whole)]

        assert told == [True, False]
        assert [file_id for file_id, _ in await place.blobs.kept_by("job_1")] == [whole.id]
        assert (await place.blobs.usage(ADA)).bytes_counted == 0
