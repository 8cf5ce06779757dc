"""Acts in force: what happens to hosts, users and jobs, here, elsewhere and after a restart."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.dispatch.hedge import begin
from comptoir.dispatch.moderate import act_on_model, follow_acts
from comptoir.dispatch.onboard import add_host, host_of
from comptoir.dispatch.submit import submit
from comptoir.hosts import ACTIVE, LINK, POLL, NewHost
from comptoir.identity import OwnerKind, Principal, Role
from comptoir.jobs import AttemptState, JobState
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from comptoir.moderation import (
    AlreadyRetired,
    HostSuspended,
    LastOperator,
    ModelQuarantined,
    NothingToLift,
    Verb,
)
from comptoir.reports import audit
from tests.dispatch.acting import OPERATOR, WHY, host_name, on_model, on_user, record_elsewhere, resume, retire, suspend
from tests.street import (
    GOES_ON,
    MODEL,
    OFFER,
    FakeChannel,
    Street,
    deliver,
    finish_well,
    open_street,
    order,
    until_over,
)


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with open_street(tmp_path) as opened:
        yield opened
        assert await audit(opened.core.db) == []


class TestHostTurnedAway:
    @pytest.mark.parametrize("verb", [suspend, retire])
    @pytest.mark.parametrize("transport", [LINK, POLL])
    async def test_its_job_goes_on_elsewhere_and_nobody_is_blamed(
        self, street: Street, verb: object, transport: str
    ) -> None:
        core = street.core
        bad, line = await street.host(offer=GOES_ON, transport=transport)
        job = await street.submit()
        assert len(line.sent) == 1
        deliver(core, job, 3)
        good, other = await street.host(offer=GOES_ON)

        act = await verb(core, bad)  # type: ignore[operator]

        assert [sent[0] for sent in other.sent] == [job]
        assert line.turned_away == [(line.turned_away[0][0], verb is retire)] and WHY in line.turned_away[0][0]
        assert [reason for _, reason in line.cancelled] == [line.turned_away[0][0]]
        assert core.fleet.find(bad) is None and bad not in core.channels
        await finish_well(core, job, tokens=5)
        assert (job.state, job.cost_uusd) == (JobState.COMPLETED, 8 * 100 + 1)
        first, second = await core.jobs.attempts(job.id)
        assert (first.host_id, first.state, first.fault or None) == (bad, AttemptState.LOST, None)
        assert first.paid_uusd == (await core.ledger.account(bad)).balance_uusd == 265  # Three tokens, less the fee.
        assert second.host_id == good
        row = await core.hosts.read(bad)
        assert (row.jobs_failed, row.jobs_lost, row.bad_milli) == (0, 0, 0)
        assert (await core.moderation.page(limit=10)) == [act]

    async def test_it_gets_no_job_any_more_and_one_that_waits_stays(self, street: Street) -> None:
        bad, line = await street.host()
        await suspend(street.core, bad)
        good, _ = await street.host(slots=1)
        first = await street.submit()

        waiting = await street.submit()

        assert first.lease is not None and first.lease.host_id == good
        assert waiting.lease is None and line.sent == []

    async def test_a_job_that_only_it_could_run_ends_as_with_a_lost_host(self, street: Street) -> None:
        bad, _ = await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)

        await suspend(street.core, bad)

        await until_over(job)
        assert (job.state, job.error_code, job.cost_uusd) == (JobState.FAILED, "host_lost", 200)
        assert WHY in job.error_message

    async def test_a_second_host_that_works_beside_the_first_stops_unpaid(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, hedge=True) as street:
            first, _ = await street.host(offer=GOES_ON)
            second, line = await street.host(offer=GOES_ON)
            job = await street.submit()
            assert job.lease is not None and job.lease.host_id == first
            begin(street.core, job, job.lease)
            assert job.hedge is not None and job.hedge.host_id == second

            await suspend(street.core, second)

            assert job.hedge is None and job.lease.host_id == first and len(line.turned_away) == 1
            await finish_well(street.core, job)
            await street.core.background.drain_tasks()
            assert (await street.core.ledger.account(second)).balance_uusd == 0
            assert await audit(street.core.db) == []

    async def test_resumed_it_serves_again_with_what_was_known_of_it(self, street: Street) -> None:
        core = street.core
        host, _ = await street.host()
        await finish_well(core, await street.submit())
        before = core.fleet.explain_reputation(host)
        await suspend(core, host)
        assert core.fleet.model(MODEL) is None and host in core.hosts.suspended

        await resume(core, host)

        line = FakeChannel()
        street.link(host, line)
        assert core.fleet.get(host).status == ACTIVE
        assert core.fleet.explain_reputation(host).jobs_done == before.jobs_done == 1
        assert host not in core.hosts.suspended
        await finish_well(core, await street.submit())
        assert len(line.sent) == 1

    async def test_after_a_restart_it_is_what_it_was(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            hosts = [(await street.host())[0] for _ in range(4)]
            await suspend(street.core, hosts[0])
            await retire(street.core, hosts[1])
            await suspend(street.core, hosts[2])
            await resume(street.core, hosts[2])
            await on_model(street.core, Verb.MODEL_QUARANTINE, "other")

        async with open_street(tmp_path, buyer=street.buyer_id) as again:
            assert [host.id for host in again.core.fleet] == hosts[2:]
            assert list(again.core.hosts.suspended) == [hosts[0]]
            assert list(again.core.moderation.quarantined) == ["other"]


class TestDeciding:
    async def test_again_is_the_same_act_and_lifting_nothing_is_refused(self, street: Street) -> None:
        core = street.core
        host, _ = await street.host()
        with pytest.raises(NothingToLift):
            await resume(core, host)
        first = await suspend(core, host)

        assert await suspend(core, host) == first
        lifted = await resume(core, host)
        assert await resume(core, host) == lifted
        last = await retire(core, host)
        assert await retire(core, host) == last
        for verb in (suspend, resume):
            with pytest.raises(AlreadyRetired):
                await verb(core, host)
        assert [act.number for act in await core.moderation.page(limit=10)] == [3, 2, 1]

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "two\nlines", "bell\x07"])
    async def test_a_reason_is_one_line_that_can_be_shown(self, street: Street, reason: str) -> None:
        with pytest.raises(InvalidField, match="reason"):
            await act_on_model(street.core, Verb.MODEL_QUARANTINE, "m", author=OPERATOR, reason=reason)

        assert await street.core.moderation.page(limit=1) == []


class TestUser:
    async def test_jobs_are_cancelled_and_hosts_go_with_their_owner(self, street: Street) -> None:
        core = street.core
        owned = NewHost(gpu="x", models=(OFFER,), transport=POLL, owner_id=street.buyer_id)
        mine = (await add_host(core, owned)).host_id
        other, _ = await street.host()
        running, waiting = await street.submit(), await street.submit()
        deliver(core, running, 2)

        await on_user(core, Verb.USER_SUSPEND, street.buyer_id)

        assert [job.state for job in (running, waiting)] == [JobState.CANCELLED] * 2
        assert (running.cost_uusd, waiting.cost_uusd) == (200, 0)
        assert [host.id for host in core.fleet] == [other] and list(core.hosts.suspended) == [mine]
        with pytest.raises(HostSuspended, match="with its owner"):
            await host_of(core, Principal(OwnerKind.HOST, mine, Role.HOST, None, ""), None)
        with pytest.raises(HostSuspended):
            await add_host(core, owned)

        await on_user(core, Verb.USER_RESUME, street.buyer_id)

        assert core.fleet.find(mine) is not None and not core.hosts.suspended

    async def test_a_host_that_was_suspended_itself_stays_so(self, street: Street) -> None:
        core = street.core
        mine = (await add_host(core, NewHost(gpu="x", models=(OFFER,), owner_id=street.buyer_id))).host_id
        await suspend(core, mine)
        await on_user(core, Verb.USER_SUSPEND, street.buyer_id)

        await on_user(core, Verb.USER_RESUME, street.buyer_id)

        assert list(core.hosts.suspended) == [mine] and core.fleet.find(mine) is None

    async def test_a_job_that_slipped_in_is_cancelled_with_the_next_look(self, street: Street) -> None:
        """It was being written when its buyer was suspended."""
        await street.host()
        await on_user(street.core, Verb.USER_SUSPEND, street.buyer_id)
        job = await submit(street.core, order(street.buyer_id))

        await follow_acts(street.core)

        assert job.state == JobState.CANCELLED


class TestQuarantine:
    async def test_nobody_is_offered_it_orders_are_refused_and_waiting_jobs_end_free(self, street: Street) -> None:
        core = street.core
        await street.host(slots=1)
        running, waiting = await street.submit(), await street.submit()

        await on_model(core, Verb.MODEL_QUARANTINE, MODEL)

        assert core.fleet.models() == [] and core.fleet.free_list(MODEL) is None
        assert (waiting.state, waiting.cost_uusd, waiting.error_code) == (JobState.FAILED, 0, "model_quarantined")
        assert WHY in waiting.error_message
        with pytest.raises(ModelQuarantined, match=WHY):
            await street.submit()
        await finish_well(core, running)
        assert running.state == JobState.COMPLETED
        assert await street.free_uusd() == 1_000_000 - running.cost_uusd

    async def test_offers_of_it_are_ignored_until_it_is_released(self, street: Street) -> None:
        core = street.core
        await on_model(core, Verb.MODEL_QUARANTINE, MODEL)
        host, line = await street.host()
        core.fleet.drain(host)
        core.fleet.resume(host)
        assert core.fleet.models() == [] and core.fleet.get(host).offers == ()

        await on_model(core, Verb.MODEL_RELEASE, MODEL)

        assert [one.name for one in core.fleet.models()] == [MODEL]
        await finish_well(core, await street.submit())
        assert len(line.sent) == 1
        core.fleet.drain(host)
        assert core.fleet.models() == []

    async def test_two_names_of_one_host_at_once_leave_it_the_third(self, street: Street) -> None:
        core = street.core
        offers = tuple([ModelOffer(name, ["chat"]) for name in ("bad", "worse", "good")])
        host = (await add_host(core, NewHost(gpu="x", models=offers, transport=POLL))).host_id
        for name in ("bad", "worse"):
            await record_elsewhere(core, Verb.MODEL_QUARANTINE, name)

        await follow_acts(core)

        assert [one.name for one in core.fleet.models()] == ["good"]
        await on_model(core, Verb.MODEL_RELEASE, "worse")
        assert [one.name for one in core.fleet.models()] == ["good", "worse"]
        core.fleet.replace_offer(host, offers[:2], 1)
        assert [one.name for one in core.fleet.models()] == ["worse"]

    async def test_a_job_that_slipped_into_the_queue_ends_with_the_next_look(self, street: Street) -> None:
        await street.host(slots=1)
        first, waiting = await street.submit(), await street.submit()
        await record_elsewhere(street.core, Verb.MODEL_QUARANTINE, MODEL)
        await street.core.moderation.read_new()  # As if it had come in between.

        await follow_acts(street.core)

        assert waiting.state == JobState.FAILED and first.state == JobState.RUNNING


class TestFollow:
    async def test_what_was_recorded_elsewhere_is_in_force_with_the_next_look(self, street: Street) -> None:
        core = street.core
        bad, line = await street.host()
        job = await street.submit()
        other, _ = await street.host()
        for verb, subject in (
            (Verb.HOST_SUSPEND, host_name(bad)),
            (Verb.MODEL_QUARANTINE, "gpt"),
            (Verb.USER_SUSPEND, public("usr", b"?" * 16)),
            (Verb.HOST_SUSPEND, "of a later version"),
        ):
            await record_elsewhere(core, verb, subject)

        await follow_acts(core)

        assert [host.id for host in core.fleet] == [other] and len(line.turned_away) == 1
        assert job.lease is not None and job.lease.host_id == other
        assert list(core.moderation.quarantined) == ["gpt"] and core.moderation.read_to == 4

    async def test_an_act_that_was_lifted_meanwhile_turns_nobody_away(self, street: Street) -> None:
        host, line = await street.host()
        for verb in (Verb.HOST_SUSPEND, Verb.HOST_RESUME):
            await record_elsewhere(street.core, verb, host_name(host))

        await follow_acts(street.core)

        assert street.core.fleet.get(host).status == ACTIVE and line.turned_away == []


class TestLastOperator:
    async def test_somebody_can_always_lift_what_was_decided(self, street: Street) -> None:
        identity = street.core.identity
        first, second = [
            (await identity.create_user(username=name, email=None, password=None, role=Role.ADMIN)).user.id
            for name in ("one", "two")
        ]
        await on_user(street.core, Verb.USER_SUSPEND, first)

        with pytest.raises(LastOperator):
            await on_user(street.core, Verb.USER_SUSPEND, second)

        await on_user(street.core, Verb.USER_RESUME, first)
        await on_user(street.core, Verb.USER_SUSPEND, second)
        assert [act.subject for act in await street.core.moderation.page(limit=9)] == [
            public("usr", one) for one in (second, first, first)
        ]
