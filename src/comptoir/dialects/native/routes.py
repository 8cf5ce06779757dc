"""Endpoints of the native dialect."""

import time
from functools import partial

from comptoir import __version__
from comptoir.dialects.native import buying, views
from comptoir.dialects.native.evidence import EVIDENCE
from comptoir.dialects.native.filing import FILING
from comptoir.dialects.native.hosted_files import HOSTED_FILES
from comptoir.dialects.native.hosting import HOSTING
from comptoir.dialects.native.inviting import INVITING
from comptoir.dialects.native.moderating import MODERATING
from comptoir.dialects.native.recovering import RECOVERING
from comptoir.dialects.native.tus import TUS
from comptoir.dialects.native.webhooks import WEBHOOKS
from comptoir.dialects.native.wire import (
    AuditView,
    ContainersView,
    DepositBody,
    Deposited,
    DifferenceView,
    HostsView,
    JobDetail,
    JobsView,
    JobView,
    ModelsView,
    ModelView,
    NameQuery,
    NativeHostsQuery,
    NativeHostView,
    NativeJobsQuery,
    NativeMe,
    OwnHostView,
    RankedView,
    RoutingQuery,
    RoutingView,
    StatementQuery,
    StatementView,
    StatusView,
    WorkView,
)
from comptoir.dispatch import Core
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.onboard import host_of
from comptoir.gateway import PlainBody, claim, find_job, in_slices, offers_shown, render_plain_error, status_of, stop
from comptoir.hosts import SUSPENDED, Host, UnknownHost
from comptoir.identity import OwnerKind, Principal, UnknownUser
from comptoir.jobs import JobFinished, JobRow, UnknownJob
from comptoir.kinds import TOKEN_IN, TOKEN_OUT, UnknownKind
from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated
from comptoir.kit.http import Access, Dialect, Endpoint, Reply, Request
from comptoir.kit.ids import parse, public
from comptoir.kit.money import from_credits
from comptoir.ledger import Account, UnknownAccount, bonds_of
from comptoir.receipts import UnknownReceipt
from comptoir.reports import audit, earned_by_kind
from comptoir.routing import Spec, UnknownPreference, preference_named, rank

OWN_TRANSFERS = 50
"""Transfers shown with a host's own view; `GET /house/statement` pages through all."""


# -- account -------------------------------------------------------------------------------------------------------


async def me(core: Core, request: Request) -> NativeMe:
    """Report whose key this is and what the account holds."""
    who: Principal = request.principal
    account = views.balance(await core.ledger.account(who.id))
    if who.kind is OwnerKind.HOST:
        host = core.fleet.find(who.id)
        return NativeMe("host", public("host", who.id), host.row.gpu if host is not None else "", "host", account)
    return NativeMe("user", public("usr", who.id), who.name, who.role, account)


async def statement(core: Core, request: Request) -> StatementView:
    """Return the account and a page of its transfers."""
    query: StatementQuery = request.query
    owner_id = request.principal.id
    before = bytes.fromhex(query.before) if query.before else None
    # One more than requested shows whether there is a next page.
    found = await core.ledger.statement(owner_id, limit=query.limit + 1, before=before)
    rows = found.transfers[: query.limit]
    shown = await in_slices(partial(views.transfer, seen_by=owner_id), rows)
    return StatementView(
        views.balance(found.account), shown, shown[-1].id if len(found.transfers) > query.limit else None
    )


async def deposit(core: Core, request: Request) -> Deposited:
    """Credit money that was paid some other way; a repeat with the same Idempotency-Key credits nothing more."""
    body: DepositBody = request.body
    try:
        amount_uusd = from_credits(body.credits)
    except ValueError as error:
        raise InvalidField("credits", str(error)) from error
    owner_id = await _owner(core, body.owner) if body.owner else request.principal.id
    bound = await claim(core, request)
    transfer = await core.ledger.deposit(
        owner_id=owner_id, amount_uusd=amount_uusd, transfer_id=bound.resource_id if bound is not None else None
    )
    account = views.balance(await core.ledger.account(owner_id))
    return Deposited(transfer.hex(), public("usr", owner_id), amount_uusd, account)


async def _owner(core: Core, text: str) -> bytes:
    owner_id = parse("usr", text)
    if owner_id is not None:
        return (await core.identity.get_user(owner_id)).id
    user = await core.identity.find_user(text)
    if user is None:
        raise InvalidField("owner", f"nobody here is called {text!r}; give a username or a user id (usr_…)")
    return user.id


# -- jobs and receipts ---------------------------------------------------------------------------------------------


def _sees(principal: Principal) -> bytes | None:
    """Return the owner whose jobs the caller may see: itself, or None (all) for an operator."""
    return None if principal.is_admin else principal.id


async def jobs(core: Core, request: Request) -> JobsView:
    """Return a page of jobs, newest first."""
    query: NativeJobsQuery = request.query
    if query.everyone and not request.principal.is_admin:
        raise NotAllowed("only an operator sees everybody's jobs; leave 'everyone' out for your own")
    owner_id = None if query.everyone else request.principal.id
    if query.idempotency_key:
        return JobsView(await _made_under(core, request.principal.id, query.idempotency_key), None)
    before = parse("job", query.before) if query.before else None
    rows = await core.jobs.newest(owner_id=owner_id, state=query.state, limit=query.limit + 1, before=before)
    shown = await in_slices(partial(views.job, core), rows[: query.limit])
    return JobsView(shown, shown[-1].id if len(rows) > query.limit else None)


async def _made_under(core: Core, owner_id: bytes, key: str) -> list[JobView]:
    """Return the job that a request under *key* created, for a client that lost the answer with its id."""
    job_id = await core.idempotency.bound_to(owner_id=owner_id, key=key)
    if job_id is None:
        return []
    try:
        return [views.job(core, await core.jobs.get(job_id, owner_id=owner_id))]
    except UnknownJob:
        return []


async def _row(core: Core, request: Request) -> JobRow:
    job_id = parse("job", request.params["id"])
    if job_id is None:
        raise UnknownJob
    return await core.jobs.get(job_id, owner_id=_sees(request.principal))


async def job(core: Core, request: Request) -> JobDetail:
    """Return one job with its events and attempts."""
    return await views.job_detail(core, await _row(core, request))


async def cancel_job(core: Core, request: Request) -> JobDetail:
    """Stop a job; what was delivered is billed, the rest is released."""
    await stop(core, await find_job(core, _sees(request.principal), request.params["id"]))
    return await job(core, request)


async def job_receipt(core: Core, request: Request) -> Reply:
    """Return the receipt of a job as its signed envelope."""
    found = await find_job(core, _sees(request.principal), request.params["id"])
    return Reply(200, await core.receipts.envelope_of(found.id))


async def receipt(core: Core, request: Request) -> Reply:
    """Return a receipt by its own id or its job's; hosts may read those of jobs that they worked on."""
    text = request.params["id"]
    job_id = parse("rcpt", text) or parse("job", text)
    if job_id is None:
        raise UnknownJob
    who: Principal = request.principal
    if who.kind is OwnerKind.HOST:
        if all(attempt.host_id != who.id for attempt in await core.jobs.attempts(job_id)):
            raise UnknownJob
    else:
        await core.jobs.get(job_id, owner_id=_sees(who))
    return Reply(200, await core.receipts.envelope_of(job_id))


async def keys(core: Core, request: Request) -> Reply:
    """Publish the keys that receipts are verified with."""
    return Reply(200, await core.receipts.registry())


# -- hosts and models ----------------------------------------------------------------------------------------------


async def hosts(core: Core, request: Request) -> HostsView:
    """Return a page of hosts; their owner also sees what they earned."""
    query: NativeHostsQuery = request.query
    owner_id = None
    if query.mine:
        if request.principal is None or request.principal.kind is not OwnerKind.USER:
            raise NotAuthenticated("'mine' needs a user's key: send 'Authorization: Bearer ck_…'")
        owner_id = request.principal.id
    found, total = _found(core, request, query, owner_id)
    accounts: dict[bytes, Account] = {}
    if owner_id is not None:
        accounts = await core.ledger.accounts([host.id for host in found])
    bonds = await bonds_of(core.db, list(accounts))

    def view(host: Host) -> NativeHostView:
        offers = offers_shown(host, hosts=len(found), first=query.model)
        return views.host_view(core, host, offers, account=accounts.get(host.id), bond=bonds.get(host.id))

    return HostsView(await in_slices(view, found), total)


def _found(core: Core, request: Request, query: NativeHostsQuery, owner_id: bytes | None) -> tuple[list[Host], int]:
    """Return a page of hosts and how many there are; suspended ones for operators who ask, and for their owner."""
    found: list[Host] = []
    total = 0
    if query.status != SUSPENDED:
        found, total = core.fleet.list_hosts(
            limit=query.limit, offset=query.offset, status=query.status, model=query.model, owner_id=owner_id
        )
    elif owner_id is None and (request.principal is None or not request.principal.is_admin):
        raise NotAllowed("only an operator sees all suspended hosts; add mine=true for your own")
    if query.status == SUSPENDED or (owner_id is not None and query.status is None and query.model is None):
        return core.hosts.with_suspended(found, total, limit=query.limit, offset=query.offset, owner_id=owner_id)
    return found, total


async def own_host(core: Core, request: Request) -> OwnHostView:
    """Return the calling host: record, reputation, money."""
    host = await host_of(core, request.principal, None)
    found = await core.ledger.statement(host.id, limit=OWN_TRANSFERS)
    owner_id = host.row.owner_id
    return OwnHostView(
        **views.host_fields(core, host, host.offers),  # type: ignore[arg-type]
        earned_uusd=found.account.balance_uusd,
        promo_uusd=found.account.promo_uusd,
        bond_uusd=views.open_uusd((await bonds_of(core.db, [host.id])).get(host.id)),
        owner=public("usr", owner_id) if owner_id is not None else None,
        linked=host.id in core.channels or core.peers.is_alive(host.node_id),
        open_jobs=[public("job", one.id) for one in core.jobs.live.leases_of(host.id)],
        account=views.balance(found.account),
        transfers=[views.transfer(row, seen_by=host.id) for row in found.transfers],
        earned_by_kind=await earned_by_kind(core.db, host.id),
    )


async def models(core: Core, request: Request) -> ModelsView:
    """List the models that can be bought now, and what is sold in other units."""
    waiting, kinds, catalog = core.jobs.queue.models(), core.jobs.kinds, core.fleet.catalog
    query: NameQuery = request.query
    sold, others = catalog.models(), catalog.work()
    if query.name is not None:
        one = catalog.model(query.name)
        sold, others = [one] if one is not None else [], catalog.work_named(query.name)
    return ModelsView(
        [
            ModelView(
                one.name, list(one.kinds), one.available_hosts, one.min_price_in_uusd_per_mtok,
                one.min_price_out_uusd_per_mtok, one.max_tokens, waiting.get(one.name, 0),
                views.prices(
                    kinds, {TOKEN_IN.name: one.min_price_in_uusd_per_mtok, TOKEN_OUT.name: one.min_price_out_uusd_per_mtok}
                ),
                dict(one.capabilities),
            )
            for one in sold
        ],
        [
            WorkView(
                one.name, kinds.noun(one.kinds), list(one.kinds), one.available_hosts, views.prices(kinds, one.prices),
                waiting.get(one.name, 0), dict(one.capabilities),
            )
            for one in others
        ],
        catalog.model_count,
        catalog.work_count,
    )  # fmt: skip


async def containers(core: Core, request: Request) -> ContainersView:
    """List the containers that can be bought now."""
    waiting = core.jobs.queue.models()
    query: NameQuery = request.query
    catalog = core.fleet.catalog
    offered = catalog.containers()
    if query.name is not None:
        one = catalog.container(query.name)
        offered = [one] if one is not None else []
    shown = [views.container_view(one, waiting=waiting.get(one.name, 0)) for one in offered]
    return ContainersView(shown, catalog.container_count)


async def routing(core: Core, request: Request) -> RoutingView:
    """Report which host would get a job, and why; buys nothing and reserves nothing."""
    query: RoutingQuery = request.query
    preference = preference_named(query.preference) if query.preference else core.preference
    kind = core.jobs.kinds.get(query.kind)
    spec = Spec(
        model=query.model,
        kind=kind.name,
        input_units=query.prompt_tokens,
        output_units=query.max_tokens,
        context_tokens=kind.context_tokens(input_units=query.prompt_tokens, output_units=query.max_tokens),
        preference=preference.name,
        needs=query.needs(),
    )
    free = core.fleet.free_list(query.model)
    found = rank(spec, free, preference, limit=query.limit) if free is not None else []
    refused = core.fleet.explain(spec)
    return RoutingView(
        query.model,
        preference.name,
        [
            RankedView(
                public("host", one.candidate.host_id),
                one.score,
                one.sentence,
                dict(one.reasons),
                one.cost_max_uusd,
                one.finish_ms,
            )
            for one in found
        ],
        core.fleet.possible(spec),
        refused.sentence() if not refused.hosts or refused.filters else "",
        core.jobs.queue.models().get(query.model, 0),
    )


# -- the post itself -----------------------------------------------------------------------------------------------


async def audited(core: Core, request: Request) -> AuditView:
    """Recompute the books, and compare jobs, attempts and receipts with them; any difference is named."""
    began = time.perf_counter()
    record = core.db.record
    found = await audit(core.db, record.files.folder.parent if record is not None else None)
    took_ms = round((time.perf_counter() - began) * 1000)
    return AuditView(
        not found, [DifferenceView(one.what, one.subject, one.recorded, one.recomputed) for one in found], took_ms
    )


async def status(core: Core, request: Request) -> StatusView:
    """Return the trading post in figures, all from memory, so it is never slow."""
    meters = core.state(Meters)
    return StatusView(
        "draining" if core.state(Shutdown).leaving else "lost" if core.db.lost else "open",
        __version__,
        round(core.clock.monotonic_s() - meters.started_s, 3),
        core.fleet.active_hosts,
        len(core.fleet),
        core.fleet.catalog.model_count,
        core.fleet.catalog.container_count,
        len(core.jobs.queue),
        core.jobs.live.leased,
        {str(state): count for state, count in meters.ended.items()},
        core.preference.name,
        core.settings.fee_bps,
        core.receipts.keyid,
    )


ENDPOINTS = (
    Endpoint(
        "GET", "/me", me, Access.ANY, "Report whose key this is and what the account holds.", response=NativeMe,
        errors=(UnknownAccount,),
    ),
    Endpoint(
        "GET", "/statement", statement, Access.ANY, "Return the account and its transfers, newest first.",
        query=StatementQuery, response=StatementView, errors=(UnknownAccount,), reads=True,
    ),
    Endpoint(
        "POST", "/deposit", deposit, Access.OPERATOR, "Credit money that was paid some other way.", request=DepositBody,
        response=Deposited, status=201, idempotent=True, errors=(UnknownUser, UnknownAccount),
        example={"owner": "demo", "credits": 50},
    ),
    *buying.ENDPOINTS,
    Endpoint(
        "GET", "/jobs", jobs, Access.BUYER, "List jobs, newest first.", query=NativeJobsQuery, response=JobsView, reads=True,
    ),
    Endpoint(
        "GET", "/jobs/{id}", job, Access.BUYER, "Return one job with its events and attempts.", response=JobDetail,
        errors=(UnknownJob,),
    ),
    Endpoint(
        "POST", "/jobs/{id}/cancel", cancel_job, Access.BUYER, "Stop a job; what was delivered is billed.",
        response=JobDetail, errors=(UnknownJob, JobFinished),
    ),
    Endpoint(
        "GET", "/jobs/{id}/receipt", job_receipt, Access.BUYER, "Return a job's receipt (DSSE envelope).",
        errors=(UnknownJob, UnknownReceipt),
    ),
    Endpoint(
        "GET", "/receipts/{id}", receipt, Access.ANY, "Return a receipt by its id or its job's (DSSE envelope).",
        errors=(UnknownJob, UnknownReceipt),
    ),
    Endpoint("GET", "/keys", keys, Access.PUBLIC, "Publish the keys that receipts are verified with.", reads=True),
    Endpoint(
        "GET", "/hosts", hosts, Access.OPTIONAL, "List hosts with offers, speed and reputation.", query=NativeHostsQuery,
        response=HostsView, reads=True,
    ),
    Endpoint(
        "GET", "/host", own_host, Access.HOST, "Return the calling host: record, reputation, earnings.",
        response=OwnHostView, errors=(UnknownHost, UnknownAccount), reads=True,
    ),
    Endpoint(
        "GET", "/models", models, Access.PUBLIC, "List the models that can be bought now.", query=NameQuery,
        response=ModelsView,
    ),
    Endpoint(
        "GET", "/containers", containers, Access.PUBLIC, "List the containers that can be bought now.",
        query=NameQuery, response=ContainersView, description="A run is bought through the Infernet API: POST /api/jobs.",
    ),
    Endpoint(
        "GET", "/routing", routing, Access.ANY, "Report which host would get a job, and why; buys nothing.", query=RoutingQuery,
        response=RoutingView, errors=(UnknownPreference, UnknownKind),
    ),
    Endpoint(
        "GET", "/audit", audited, Access.OPERATOR, "Recompute the books; any difference is named.", response=AuditView,
        reads=True,
    ),
    Endpoint("GET", "/status", status, Access.PUBLIC, "Return the trading post in figures.", response=StatusView),
)  # fmt: skip

DIALECT = Dialect(
    name="native",
    title="Comptoir native",
    prefix="/house",
    endpoints=(
        *ENDPOINTS,
        *HOSTING,
        *HOSTED_FILES,
        *INVITING,
        *MODERATING,
        *EVIDENCE,
        *RECOVERING,
        *FILING,
        *TUS,
        *WEBHOOKS,
    ),
    render_error=render_plain_error,
    description="What command line, console and host owners need: accounts, jobs, files, receipts, hosts, audit. "
    "Amounts are micro-dollars (10,000 are one credit), times milliseconds since 1970 UTC.",
    at_root=False,
    error_statuses=status_of,
    error_body=PlainBody,
)
