"""Renders the page and its live part from what the core has in memory, a few times a second at most."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from typing import TypeVar

from comptoir import __version__
from comptoir.dispatch import Core, State
from comptoir.dispatch.drain import Shutdown
from comptoir.hosts import ACTIVE, DRAINING, ContainerSummary, Host, ModelSummary, ReputationStory, WorkSummary
from comptoir.kinds import ContainerChain, answers_chat
from comptoir.kinds.capabilities import CLAIMED, PROBED
from comptoir.kit.http import Dialect, document_bytes
from comptoir.kit.ids import public
from comptoir.web import reference
from comptoir.web.assets import address
from comptoir.web.markup import Html, fill, template
from comptoir.web.prices import price, run_credits, run_dollars, unit_credits

FRESH_S = 1.0
"""How long a rendered fragment is reused; bounds the work, however many pages are open."""

HOSTS_SHOWN = 40
MODELS_SHOWN = 60
CONTAINERS_SHOWN = 60
MODELS_OF_A_HOST = 3

Summary = TypeVar("Summary", ModelSummary, ContainerSummary, WorkSummary)

PROVES = Html(' <span class="mark" title="It can prove its results">proofs</span>')

_PASTEABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
"""Names of models and containers that may appear in a shell command: hosts choose names, and people paste them."""


@dataclass(frozen=True)
class Fragment:
    """The live part of the page."""

    status: Html
    """The status line, which is elsewhere on the page."""
    tables: str
    fingerprint: str
    """Changes if and only if the fragment does."""

    def swap(self) -> bytes:
        """Return what HTMX swaps in: the tables, and the status line out of band."""
        line = fill('<p id="status" class="status" hx-swap-oob="true">{{status}}</p>', status=self.status)
        return (self.tables + line).encode()


class LivePart(State):
    """The live part as last rendered."""

    def __init__(self, core: Core) -> None:
        self.kept: tuple[float, Fragment] | None = None
        """With its monotonic time."""


class Shop:
    """The pages of a core and its *dialects*."""

    def __init__(self, dialects: tuple[Dialect, ...]) -> None:
        self._dialects = dialects
        # Declarations do not change while the process runs: each document is generated once.
        self._document = cache(lambda dialect: document_bytes(dialect, version=__version__))

    # -- the page ------------------------------------------------------------------------------------------------

    def front(self, core: Core, base: str) -> bytes:
        """Return the page, with commands that name *base* as the server."""
        models, live = foremost(core, core.fleet.models(), MODELS_SHOWN), self.market(core)
        containers = core.fleet.catalog.containers()
        model = next(
            (one.name for one in models if answers_chat(one.kinds) and _PASTEABLE.fullmatch(one.name)), "MODEL"
        )
        container = next(
            (one.name for one in containers if one.external and _PASTEABLE.fullmatch(one.name)), "CONTAINER"
        )
        return fill(
            template("front.html"), css=address("page.css"), icon=address("icon.svg"), htmx=address("htmx.js"),
            api=address("api.js"), script=address("page.js"), status=live.status, options=options(models), market=Html(live.tables),
            base=base, model=model, container=container, run_hidden=Html("" if containers else " hidden"), version=__version__,
        ).encode()  # fmt: skip

    def market(self, core: Core) -> Fragment:
        """Return the live part, at most `FRESH_S` old."""
        now_s, live = core.clock.monotonic_s(), core.state(LivePart)
        if live.kept is not None and now_s - live.kept[0] < FRESH_S:
            return live.kept[1]
        models, waiting = foremost(core, core.fleet.models(), MODELS_SHOWN), core.jobs.queue.models()
        containers = foremost(core, core.fleet.catalog.containers(), CONTAINERS_SHOWN)
        status = status_line(core)
        tables = fill(
            template("market.html"),
            models=model_rows(models, waiting),
            hosts=host_rows(core),
            containers=containers_section(core, containers, waiting),
            others=others_section(core, waiting),
            offers="Models and containers" if containers else "Models",
            more_models=more(core.fleet.catalog.model_count - len(models)),
            more_hosts=more(len(core.fleet) - HOSTS_SHOWN),
        )
        fingerprint = hashlib.sha256((status + tables).encode()).hexdigest()[:16]
        made = Fragment(status, tables.replace("?seen=SEEN", f"?seen={fingerprint}", 1), fingerprint)
        live.kept = now_s, made
        return made

    @cached_property
    def work(self) -> bytes:
        """The page of programs and jobs; what is on it comes to the browser, under the key that is typed there."""
        return fill(
            template("work.html"), css=address("page.css"), icon=address("icon.svg"), api=address("api.js"),
            script=address("work.js"), version=__version__,
        ).encode()  # fmt: skip

    # -- references ----------------------------------------------------------------------------------------------

    def document(self, name: str) -> bytes | None:
        """Return the OpenAPI document of the dialect called *name*, None when there is none."""
        dialect = self._named(name)
        return self._document(dialect) if dialect is not None else None

    def reference(self, name: str) -> bytes | None:
        """Return the reference page of the dialect called *name*, None when there is none."""
        dialect = self._named(name)
        return reference.page(dialect) if dialect is not None else None

    def index(self) -> bytes:
        """Return the list of dialects."""
        return reference.index(self._dialects)

    def _named(self, name: str) -> Dialect | None:
        return next((dialect for dialect in self._dialects if dialect.name == name), None)


def foremost(core: Core, listed: list[Summary], most: int) -> list[Summary]:
    """Return those of *listed* that the page shows, by name: the foremost *most* (`Catalog.models`)."""
    names = frozenset(core.fleet.catalog.foremost({one.name: one.available_hosts for one in listed}, most))
    return [one for one in listed if one.name in names]


def status_line(core: Core) -> Html:
    """Summarise the trading post in a line."""
    hosts, models, waiting = core.fleet.active_hosts, core.fleet.catalog.model_count, len(core.jobs.queue)
    containers = core.fleet.catalog.container_count
    state, words = ("ok", "Open") if hosts else ("idle", "Open, no host yet")
    if core.state(Shutdown).draining:
        state, words = "bad", "Closing"
    facts = [
        _count(hosts, "host"),
        _count(models, "model"),
        *((_count(containers, ContainerChain.noun),) if containers else ()),
        *(_count(number, noun) for noun, number in _others(core).items()),
        _count(core.jobs.live.leased, "job running", "jobs running"),
    ]
    if waiting:
        facts.append(f"{waiting:,} waiting")
    return fill(
        '<span class="dot {{state}}"></span><strong>{{words}}</strong> <span>{{facts}}</span>',
        state=state,
        words=words,
        facts=" · ".join(facts),
    )


def _others(core: Core) -> Counter[str]:
    """Count what is sold in other units, by noun."""
    return Counter([core.jobs.kinds.noun(one.kinds) for one in core.fleet.catalog.work()])


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def options(models: list[ModelSummary]) -> list[Html]:
    """Return the models that answer chats, as options of a select."""
    return [
        fill('<option value="{{name}}">{{name}}</option>', name=one.name) for one in models if answers_chat(one.kinds)
    ]


def model_rows(models: list[ModelSummary], waiting: dict[str, int]) -> list[Html]:
    """Return a table row for each model."""
    rows = [
        fill(
            template("model.html"),
            name=one.name,
            kinds=", ".join(one.kinds),
            hosts=one.available_hosts,
            price_in=price(one.min_price_in_uusd_per_mtok),
            price_out=price(one.min_price_out_uusd_per_mtok),
            context=f"{one.max_tokens:,}",
            able=_able(one.capabilities),
            waiting=f"{waiting.get(one.name, 0):,}",
            chat="yes" if answers_chat(one.kinds) else "no",
        )
        for one in models
    ]
    return rows or [Html('<tr><td colspan="6" class="none">No host offers a model yet.</td></tr>')]


def _able(said: Mapping[str, str]) -> list[Html]:
    marked = [(name, "") for name in said if said[name] == PROBED]
    marked += [(name, " claimed") for name in said if said[name] == CLAIMED]
    return [
        fill(
            ' <span class="mark{{claimed}}" title="{{title}}">{{name}}</span>',
            claimed=claimed,
            title="Its hosts say so; nobody has tried" if claimed else "Tried: asked for, and seen",
            name=f"{name}?" if claimed else name,
        )
        for name, claimed in marked
    ]


def containers_section(core: Core, containers: list[ContainerSummary], waiting: dict[str, int]) -> Html:
    """Return the section of containers; empty if none is on offer."""
    if not containers:
        return Html("")
    rows = [
        fill(
            template("container.html"),
            name=one.name,
            description=one.description or one.image,
            entry="first" if one.external else "private",
            first="yes" if one.external else "no",
            entry_says="A job may start with it" if one.external else "It only takes another container's output",
            proofs=PROVES if one.generates_proofs else "",
            price=run_dollars(one.min_price_uusd_per_mrun),
            credits=run_credits(one.min_price_uusd_per_mrun),
            hosts=one.available_hosts,
            waiting=f"{waiting.get(one.name, 0):,}",
        )
        for one in containers
    ]
    return fill(template("containers.html"), rows=rows, more=more(core.fleet.catalog.container_count - len(rows)))


def others_section(core: Core, waiting: dict[str, int]) -> Html:
    """Return the section of what is sold in other units; empty if there is nothing."""
    offered, kinds = foremost(core, core.fleet.catalog.work(), MODELS_SHOWN), core.jobs.kinds
    if not offered:
        return Html("")
    rows = [
        fill(
            template("other.html"),
            name=one.name,
            kinds=", ".join(one.kinds),
            hosts=one.available_hosts,
            able=_able(one.capabilities),
            price=", ".join([unit_credits(rate, kinds.unit(name)) for name, rate in one.prices.items()]),
            waiting=f"{waiting.get(one.name, 0):,}",
        )
        for one in offered
    ]
    return fill(template("others.html"), rows=rows, more=more(core.fleet.catalog.work_count - len(rows)))


def host_rows(core: Core) -> list[Html]:
    """Return a table row for each host, active ones first."""
    rows = [_host_row(core, host) for host in islice(_active_first(core), HOSTS_SHOWN)]
    return rows or [
        Html('<tr><td colspan="5" class="none">Nobody is here. <code>comptoir host</code> joins one.</td></tr>')
    ]


def _active_first(core: Core) -> Iterator[Host]:
    yield from (host for host in core.fleet if host.status == ACTIVE)
    yield from (host for host in core.fleet if host.status != ACTIVE)


def _host_row(core: Core, host: Host) -> Html:
    names = [offer.name for offer in host.offers]
    over = len(names) - MODELS_OF_A_HOST
    story = core.fleet.explain_reputation(host.id)
    name = public("host", host.id)
    busy = f"{host.slots.running} of {host.slots.total} busy"
    return fill(
        template("host.html"),
        id=name,
        short=f"host_…{name[-8:]}",
        gpu=host.row.gpu,
        models=", ".join(names[:MODELS_OF_A_HOST]),
        more=f" and {over} more" if over > 0 else "",
        status=host.status,
        dot={ACTIVE: "ok", DRAINING: "idle"}.get(host.status, "bad"),
        busy=busy if host.status == ACTIVE else "",
        reputation=_reputation(story),
        story=story.sentence,
    )


def _reputation(story: ReputationStory) -> Html:
    if not story.jobs_done + story.jobs_failed + story.jobs_lost:
        return Html('<span class="kind">new</span>')
    return fill(template("reputation.html"), score=f"{story.score:.2f}")


def more(over: int) -> Html:
    """Say how many rows a table left out."""
    return fill('<p class="more">and {{over}} more</p>', over=f"{over:,}") if over > 0 else Html("")
