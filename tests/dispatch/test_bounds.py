"""Bounds that the settings name are kept."""

from pathlib import Path

import pytest

from comptoir.dispatch.errors import AnswerTooLarge
from comptoir.dispatch.stream import take_frames
from comptoir.kit.errors import NotAllowed
from comptoir.link import Frame
from tests.street import open_street


class TestHostsMax:
    async def test_a_host_too_many_is_refused(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, hosts_max=1) as street:
            await street.host()

            with pytest.raises(NotAllowed, match="takes 1 hosts"):
                await street.host()

            assert len(street.house.fleet) == 1


class TestAnswerBytesMax:
    async def test_an_answer_beyond_it_is_not_taken(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, answer_bytes_max=1024) as street:
            await street.host()
            job = await street.submit(max_tokens=100)
            take_frames(street.house, job, 0, [Frame("x" * 1000)])

            with pytest.raises(AnswerTooLarge):
                take_frames(street.house, job, 1, [Frame("x" * 100)])

            assert len(job.frames) == 1
