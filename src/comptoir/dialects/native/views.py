"""From the rooms' records to the wire: pure, except for the fleet's current state."""

from collections.abc import Mapping, Sequence
from typing import Any

from comptoir.dialects.native.job_file_wire import ArtifactView, InputView
from comptoir.dialects.native.wire import (
    AttemptView,
    Balance,
    ContainerView,
    EventView,
    JobDetail,
    JobView,
    NativeHostView,
    OfferView,
    PaceView,
    PriceView,
    ReputationView,
    TransferView,
    UnitView,
)
from comptoir.dispatch import Core
from comptoir.hosts import ContainerSummary, Host
from comptoir.jobs import FINAL, AttemptRow, JobRow
from comptoir.kinds import Kind, Kinds, Unit, bought
from comptoir.kinds.files import Fetched, InputFile, artifacts_in, fetched_in
from comptoir.kit.ids import public
from comptoir.kit.money import run_price
from comptoir.ledger import OPERATOR_ACCOUNTS, Account, Bond, BondState, Transfer
from comptoir.link import ModelOffer


def balance(account: Account) -> Balance:
    """Render an account."""
    return Balance(
        account.balance_uusd, account.held_uusd, account.free_uusd, account.promo_uusd, account.payable_uusd
    )  # fmt: skip


def transfer(row: Transfer, *, seen_by: bytes) -> TransferView:
    """Render a ledger row as the owner of *seen_by* sees it: outgoing amounts are negative."""
    left = row.debit_id == seen_by
    return TransferView(
        row.id.hex(),
        row.kind,
        -row.amount_uusd if left else row.amount_uusd,
        _account_name(row.credit_id if left else row.debit_id, row.kind, left=left),
        public("job", row.job_id) if row.job_id is not None else None,
        row.created_ms,
        -row.promo_uusd if left and row.promo_uusd is not None else row.promo_uusd,
    )


def _account_name(account_id: bytes, kind: str, *, left: bool) -> str:
    known = OPERATOR_ACCOUNTS.get(account_id)
    if known is not None:
        return known
    # A buyer pays a host, a host is paid by a buyer: the kind only tells what the other side is.
    return public("host" if kind == "pay" and left else "usr", account_id)


def _fields(core: Core, row: JobRow) -> dict[str, object]:
    live = core.jobs.live.get(row.id)
    over = row.state in FINAL
    stages = row.stages
    containers = [stage.model for stage in stages]
    kind, count = (
        core.jobs.kinds.stored(row.kind),
        live.count if live is not None and not over else row.completion_tokens,
    )
    return {
        "id": public("job", row.id), "state": row.state, "model": bought(row.model, stages), "kind": row.kind, "noun": kind.noun,
        "dialect": row.dialect, "containers": containers,
        "owner": public("usr", row.owner_id), "host": public("host", row.host_id) if row.host_id else None,
        "created_ms": row.created_ms, "started_ms": row.started_ms, "finished_ms": row.finished_ms,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": count,
        "units": _units(kind, (row.prompt_tokens, row.terms.input_max), (count, row.max_tokens)),
        "max_tokens": row.max_tokens, "hold_uusd": row.hold_uusd, "cost_uusd": row.cost_uusd,
        "finish_reason": row.finish_reason, "fault": row.fault, "error_code": row.error_code,
        "error_message": row.error_message, "receipt": public("rcpt", row.id) if over else None,
        "queue_position": core.jobs.queue.before(row.id),
    }  # fmt: skip


def _units(kind: Kind, into: tuple[int | None, int | None], out: tuple[int, int | None]) -> list[UnitView]:
    """Render counts (and the most that is paid), by the units of *kind*; an input that was not counted is omitted."""
    views = [_unit(kind.output, out[0], out[1], once=False)]
    if kind.input is not None and into[0] is not None:
        views.insert(0, _unit(kind.input, into[0], into[1], once=True))
    return views


def _unit(unit: Unit, count: int, most: int | None, *, once: bool) -> UnitView:
    return UnitView(unit.name, unit.one, unit.many, count, most, once, unit.shown)


def prices(kinds: Kinds, by_unit: Mapping[str, int]) -> list[PriceView]:
    """Render prices, micro-dollars per million of each unit."""
    units = [(kinds.unit(name), rate) for name, rate in by_unit.items()]
    return [PriceView(unit.name, rate, unit.per, unit.priced) for unit, rate in units]


def job(core: Core, row: JobRow) -> JobView:
    """Render a job for a list."""
    return JobView(**_fields(core, row))  # type: ignore[arg-type]


async def job_detail(core: Core, row: JobRow) -> JobDetail:
    """Render a job with its events, attempts and files."""
    ran_ms = row.finished_ms - row.started_ms if row.finished_ms is not None and row.started_ms is not None else None
    return JobDetail(
        **_fields(core, row),  # type: ignore[arg-type]
        price_in_uusd_per_mtok=row.price_in_uusd_per_mtok,
        price_out_uusd_per_mtok=row.price_out_uusd_per_mtok,
        deadline_ms=row.deadline_ms,
        ran_ms=ran_ms,
        waited_ms=row.started_ms - row.created_ms if row.started_ms is not None else None,
        events=[EventView(state, at_ms, detail) for state, at_ms, detail in await core.jobs.events(row.id)],
        attempts=[_attempt(core.jobs.kinds, row, attempt) for attempt in await core.jobs.attempts(row.id)],
        **await _files(core, row),
    )


async def _files(core: Core, row: JobRow) -> dict[str, Any]:
    """Return the fields of a job's files; of a kind without files, none."""
    kind = core.jobs.kinds.stored(row.kind)
    if not kind.files:
        return {}
    seen = core.jobs.live.seen(row.id)
    if seen is not None and seen.body and (seen.frames or row.state not in FINAL):
        body, frames = seen.body, seen.frames
    else:
        body = (await core.jobs.get(row.id, light=False)).body
        frames = (await core.jobs.answer(row.id))[0] if row.state in FINAL else []
    inputs, fetched = kind.inputs(body) if body else (), fetched_in(frames)
    return {
        "inputs": [_input(each, at, fetched.get(at)) for at, each in enumerate(inputs)],
        "artifacts": [
            ArtifactView(each.name, each.file, each.size, each.sha256, each.media) for each in artifacts_in(frames)
        ],
    }


def _input(asked: InputFile, at: int, fetched: Fetched | None) -> InputView:
    known = asked if fetched is None else fetched
    return InputView(asked.called(at), asked.file, asked.url, known.size, known.sha256)


def _attempt(kinds: Kinds, job: JobRow, row: AttemptRow) -> AttemptView:
    kind, stages = kinds.stored(job.kind), job.stages
    # Each stage but the last makes exactly one frame, so the number of the first frame is the number of the stage.
    container = stages[min(row.first_frame, len(stages) - 1)].model if stages else None
    asked = zip(reversed(kind.units), (row.price_out, row.price_in), strict=False)
    return AttemptView(
        public("att", row.id), public("host", row.host_id), row.state, row.first_frame, row.end_frame, row.tokens,
        row.paid_uusd, row.started_ms, row.ended_ms, row.fault or None, container,
        run_price(row.price_out) if stages and row.price_out is not None else None,
        _units(kind, (row.prompt_tokens, None), (row.tokens, None)),
        prices(kinds, {unit.name: rate for unit, rate in asked if rate is not None})[::-1], container,
    )  # fmt: skip


def host_fields(core: Core, host: Host, offers: Sequence[ModelOffer]) -> dict[str, object]:
    """Return the fields of `NativeHostView`, without earnings and bond; of its offers, *offers* are shown."""
    row, story = host.row, core.fleet.story_of(host)
    return {
        "id": public("host", host.id), "gpu": row.gpu, "vram_mib": row.vram_mib, "region": row.region, "tier": row.tier,
        "backend": row.backend, "transport": row.transport, "status": host.status, "slots": host.slots.total,
        "running": host.slots.running, "gpu_utilization": host.gpu_utilization, "tokens_done": host.tokens_done,
        "created_ms": row.created_ms, "last_seen_ms": host.last_seen_ms,
        "models": [_offer(core, host, offer) for offer in offers], "models_total": len(host.offers),
        "reputation": ReputationView(
            round(story.score, 4), story.sentence, story.jobs_done, story.jobs_failed, story.jobs_lost
        ),
    }  # fmt: skip


def host_view(
    core: Core, host: Host, offers: Sequence[ModelOffer], *, account: Account | None, bond: Bond | None
) -> NativeHostView:
    """Render a host with some of its offers; *account*, and with it *bond*, only for its owner."""
    return NativeHostView(
        **host_fields(core, host, offers),  # type: ignore[arg-type]
        earned_uusd=account.balance_uusd if account is not None else None,
        promo_uusd=account.promo_uusd if account is not None else None,
        bond_uusd=open_uusd(bond) if account is not None else None,
    )


def open_uusd(bond: Bond | None) -> int:
    """Return what is put up for a host now; 0: nothing, or no more."""
    return bond.amount_uusd if bond is not None and bond.state is BondState.OPEN else 0


def _offer(core: Core, host: Host, offer: ModelOffer) -> OfferView:
    pace = core.fleet.pace(host.id, offer.name)
    return OfferView(
        offer.name,
        offer.kinds,
        offer.context_tokens,
        offer.price_in_uusd_per_mtok,
        offer.price_out_uusd_per_mtok,
        offer.can_continue,
        offer.no_promotions,
        core.jobs.kinds.capabilities(offer),
        offer.fingerprint,
        PaceView(
            pace.measured,
            round(pace.first_frame_p50_ms, 2),
            round(pace.first_frame_p99_ms, 2),
            round(pace.inter_frame_p50_ms, 3),
            round(pace.inter_frame_p99_ms, 3),
        ),
        run_price(core.jobs.kinds.rates(offer)[1]) if offer.container is not None else None,
        prices(core.jobs.kinds, core.jobs.kinds.prices(offer)),
    )


def container_view(one: ContainerSummary, *, waiting: int) -> ContainerView:
    """Render a container on offer, with the number of jobs that wait for it."""
    return ContainerView(
        one.name,
        one.description,
        one.image,
        one.external,
        one.generates_proofs,
        one.available_hosts,
        run_price(one.min_price_uusd_per_mrun),
        waiting,
    )
