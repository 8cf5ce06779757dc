"""Statuses that programs of this machine report: kept as long as answers are."""

import asyncio
from pathlib import Path

from comptoir.containers import RecordedStatuses, forgetting
from tests.street import Street, open_street

DAY_S = 24 * 3600


async def record(street: Street, name: str) -> RecordedStatuses:
    statuses = street.core.state(RecordedStatuses)
    await statuses.put("ip:127.0.0.1", name, status="running", containers=["a"], at_ms=street.clock.now_ms())
    return statuses


class TestForgetting:
    async def test_what_nobody_touched_for_so_long_goes(self, street: Street) -> None:
        statuses = await record(street, "old")
        street.clock.advance(seconds=street.core.settings.retention_days * DAY_S + 1)
        await record(street, "new")

        async with forgetting(street.core), asyncio.timeout(10):
            while await statuses.statuses("ip:127.0.0.1", ["old"]):
                await asyncio.sleep(0)

        assert await statuses.names("ip:127.0.0.1", running=None, limit=9) == ["new"]

    async def test_without_retention_they_are_kept(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, retention_days=0) as street:
            statuses = await record(street, "old")
            street.clock.advance(seconds=1000 * DAY_S)

            async with forgetting(street.core):
                await asyncio.sleep(0)

            assert await statuses.names("ip:127.0.0.1", running=None, limit=9) == ["old"]
