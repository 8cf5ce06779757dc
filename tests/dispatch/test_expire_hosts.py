"""Hosts that nobody hears any more: retired after days that depend on what they have, and never by mistake."""

from pathlib import Path

import pytest

from comptoir.dispatch.expire_hosts import WALK_AGAIN_S, retire_silent_hosts
from comptoir.dispatch.onboard import add_host
from comptoir.hosts import LINK, NewHost
from comptoir.kit.ids import public
from comptoir.moderation import Verb
from tests.dispatch.acting import on_user, resume, suspend
from tests.street import OFFER, FakeChannel, Street, finish_well, open_street

DAY_S = 24 * 3600.0


async def named(street: Street, *, owned: bool = False) -> bytes:
    """Register a host that never links."""
    owner_id = street.buyer_id if owned else None
    return (await add_host(street.core, NewHost(gpu="x", models=(OFFER,), transport=LINK, owner_id=owner_id))).host_id


def later(street: Street, days: float) -> None:
    """Let days pass, in which nobody is heard."""
    street.clock.advance(seconds=days * DAY_S)
    for host in list(street.core.fleet):
        if host.id in street.core.channels:
            street.core.fleet.seen(host.id)
    street.core.fleet.silent()


class TestSilentHosts:
    @pytest.mark.parametrize(
        ("settings", "left_after"),
        [
            ({}, {2.9: "nsoe", 3.1: "soe", 29.9: "soe", 30.5: "s"}),
            ({"silent_newcomer_days": 0}, {29.9: "nsoe", 30.5: "ns"}),
            ({"silent_host_days": 0}, {3.1: "soe", 300: "soe"}),
            ({"silent_host_days": 0, "silent_newcomer_days": 0}, {300: "nsoe"}),
            ({"silent_host_days": 1, "silent_newcomer_days": 2}, {1.1: "ns", 2.1: "s"}),
        ],
    )
    async def test_what_a_host_has_decides_how_long_it_is_kept(
        self, tmp_path: Path, settings: dict[str, int], left_after: dict[float, str]
    ) -> None:
        """A newcomer without anything, one that serves, one with an owner, and one that has earned."""
        async with open_street(tmp_path, **settings) as street:
            core = street.core
            earned, _ = await street.host()
            await finish_well(core, await street.submit())
            street.unlink(earned)
            serves, _ = await street.host()
            hosts = {"n": await named(street), "s": serves, "o": await named(street, owned=True), "e": earned}
            assert await retire_silent_hosts(core) == 0  # The first sweep after the start.
            passed = 0.0
            for days, left in left_after.items():
                later(street, days - passed)
                passed = days
                await core.hosts.flush()

                await retire_silent_hosts(core)

                assert {host.id for host in core.fleet} == {hosts[name] for name in left}, days
            for name, host_id in hosts.items():
                row = await core.hosts.read(host_id)
                assert (row.retired_ms is None) == (name in left)
            acts = await core.moderation.page(limit=9)
            assert {(act.operator, act.operator_id, act.verb) for act in acts} <= {
                ("the coordinator", None, "host.retire")
            }
            assert {act.subject for act in acts} == {public("host", hosts[name]) for name in set("nsoe") - set(left)}

    async def test_nobody_is_judged_in_the_first_hour_after_a_start(self, tmp_path: Path) -> None:
        """The post may have been away for longer than its hosts."""
        async with open_street(tmp_path) as street:
            host = await named(street)
            await street.core.hosts.flush()
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            # The wall clock of a start forty days later; what the coordinator waits by is the time that it runs.
            street.clock._now_ms += int(40 * DAY_S * 1000)
            assert await retire_silent_hosts(street.core) == 0
            line = FakeChannel()
            street.clock.advance(seconds=WALK_AGAIN_S - 60)
            street.link(host, line)
            await street.core.hosts.flush()
            street.clock.advance(seconds=120)

            assert await retire_silent_hosts(street.core) == 0
            assert [one.id for one in street.core.fleet] == [host]

    async def test_a_suspended_host_is_kept_and_has_its_days_anew_when_resumed(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, silent_newcomer_days=3, silent_host_days=3) as street:
            core = street.core
            assert await retire_silent_hosts(core) == 0
            alone, owned = await named(street), await named(street, owned=True)
            await suspend(core, alone)
            await on_user(core, Verb.USER_SUSPEND, street.buyer_id)
            later(street, 10)
            assert await retire_silent_hosts(core) == 0
            await resume(core, alone)
            await on_user(core, Verb.USER_RESUME, street.buyer_id)
            later(street, 2.9)
            assert await retire_silent_hosts(core) == 0
            assert {host.id for host in core.fleet} == {alone, owned}
            later(street, 0.2)

            assert await retire_silent_hosts(core) == 2

    async def test_one_that_another_coordinator_hears_is_kept(self, tmp_path: Path) -> None:
        """Its sign of life was written after the walk had read the row."""
        async with open_street(tmp_path) as street:
            core = street.core
            host = await named(street)
            assert await retire_silent_hosts(core) == 0
            later(street, 4)
            read = core.hosts.last_heard

            async def heard_meanwhile(*, after: bytes, limit: int) -> object:
                rows = await read(after=after, limit=limit)
                now_ms = core.clock.now_ms()
                await core.db.run(lambda tx: tx.execute("UPDATE hosts SET last_seen_ms = ?", [now_ms]))
                return rows

            core.hosts.last_heard = heard_meanwhile  # type: ignore[method-assign, assignment]

            assert await retire_silent_hosts(core) == 0
            assert core.fleet.find(host) is not None and await core.moderation.page(limit=1) == []
