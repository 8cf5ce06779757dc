"""One host in memory: what it is, what it offers, how it has performed."""

from dataclasses import replace

from comptoir.hosts.access import ContainerAccess, container_access
from comptoir.hosts.pace import Pace
from comptoir.hosts.reach import REACHES
from comptoir.hosts.reputation import Reputation
from comptoir.hosts.types import OFFLINE, POLL, HostRow
from comptoir.kinds import Kinds
from comptoir.kinds.capabilities import able, lacking
from comptoir.link import ModelOffer
from comptoir.routing import Candidate, Slots


class Host:
    """One host as it is now. Anybody may read it; only the fleet changes it."""

    __slots__ = (
        "busy_row",
        "came_ms",
        "candidates",
        "gone",
        "gpu_utilization",
        "jobs_done",
        "jobs_failed",
        "jobs_lost",
        "last_seen_ms",
        "linked",
        "node_id",
        "offers",
        "paces",
        "reach",
        "reputation",
        "rests",
        "row",
        "seen_s",
        "slots",
        "status",
        "tokens_done",
    )

    def __init__(self, row: HostRow) -> None:
        self.row = row
        """The record as registered (models, slots and GPU up to date; statistics as loaded)."""
        self.offers = row.models
        """What it offers: its record's models, without names in quarantine."""
        self.reach = REACHES[row.transport]
        self.slots = Slots(row.slots)
        self.slots.open = False
        self.slots.waiting = 0 if row.transport == POLL else None
        self.slots.count()
        self.status = OFFLINE
        self.gone = False
        """Whether it has been offline for so long that no job waits for it (``host_away_s``)."""
        self.busy_row, self.rests = 0, False
        """How often in a row it said that it is busy; and whether it is passed over for that now."""
        self.linked = False
        self.node_id = b""
        """The other coordinator that it is connected to or was last heard by; empty: none, or this one."""
        self.came_ms = 0
        """Wall time here at which it connected to its current coordinator, or was first announced by it."""
        self.candidates: dict[str, Candidate] = {}
        self.paces: dict[str, Pace] = {}
        self.reputation = Reputation.stored(row.good_milli, row.bad_milli, row.outcome_ms, row.evidence)
        self.gpu_utilization = 0.0
        self.seen_s = 0.0
        self.last_seen_ms = row.last_seen_ms
        self.jobs_done, self.jobs_failed, self.jobs_lost = row.jobs_done, row.jobs_failed, row.jobs_lost
        self.tokens_done = row.tokens_done

    def keep_offers(self, quarantined: frozenset[str]) -> None:
        """Offer what the record says, but none of *quarantined*."""
        models = self.row.models
        self.offers = tuple([one for one in models if one.name not in quarantined]) if quarantined else models

    def remember(self, row: HostRow) -> None:
        """Load the statistics of *row*, which another coordinator wrote since they were loaded here."""
        self.reputation = Reputation.stored(row.good_milli, row.bad_milli, row.outcome_ms, row.evidence)
        self.jobs_done, self.jobs_failed, self.jobs_lost = row.jobs_done, row.jobs_failed, row.jobs_lost
        self.tokens_done = row.tokens_done
        self.last_seen_ms = max(self.last_seen_ms, row.last_seen_ms)

    @property
    def id(self) -> bytes:
        """The 16-byte id."""
        return self.row.id

    def takes_promotions(self, model: str) -> bool:
        """Tell whether it takes promotional credit for *model*; also if it no longer offers that."""
        candidate = self.candidates.get(model)
        return candidate is None or not candidate.no_promotions

    @property
    def published_reputation(self) -> float:
        """What routing knows of its reputation, that of a remote host as announced; 0 if it offers nothing."""
        return next((candidate.reputation for candidate in self.candidates.values()), 0.0)

    def describe_offer(self, candidate: Candidate, offer: ModelOffer, kinds: Kinds) -> None:
        """Copy what *offer* says, as far as filters and scores look at it, to the candidate of its model."""
        candidate.kinds = frozenset(offer.kinds)
        candidate.context_tokens = offer.context_tokens
        candidate.rate_in, candidate.rate_out = kinds.rates(offer)
        candidate.rates = kinds.prices(offer)
        candidate.can_continue = offer.can_continue
        candidate.text_only, candidate.no_promotions = offer.text_only, offer.no_promotions
        said = kinds.capabilities(offer)
        candidate.able, candidate.lacking = able(said), lacking(said)
        candidate.access = access_of_offer(offer)
        candidate.stops_at_once, candidate.remote = self.reach.stops_at_once, bool(self.node_id)

    def describe_machine(self, candidate: Candidate) -> None:
        """Copy the machine's properties that filters look at, and its group, to one of its candidates."""
        row = self.row
        candidate.group = row.owner_id or (row.address_block or "").encode() or row.id
        candidate.region, candidate.tier = row.region, row.tier
        candidate.gpu, candidate.vram_mib, candidate.capacity = row.gpu, row.vram_mib, row.capacity

    def stored(self) -> HostRow:
        """Return the row that should be in the database now."""
        return replace(
            self.row,
            status=self.status,
            last_seen_ms=self.last_seen_ms,
            jobs_done=self.jobs_done,
            jobs_failed=self.jobs_failed,
            jobs_lost=self.jobs_lost,
            tokens_done=self.tokens_done,
            good_milli=round(self.reputation.good * 1000),
            bad_milli=round(self.reputation.bad * 1000),
            outcome_ms=self.reputation.at_ms,
            evidence=self.reputation.evidence,
        )


def access_of_offer(offer: ModelOffer) -> ContainerAccess | None:
    """Return a host's access rule for a container that it offers; None: the offer is a model."""
    card = offer.container
    if card is None:
        return None
    return container_access(
        external=card.external,
        proofs=card.generates_proofs,
        networks=card.allowed_ips,
        rate_requests=card.rate_requests,
        rate_period_s=card.rate_period_s,
    )


def access_of_candidate(candidate: Candidate) -> ContainerAccess | None:
    """Return a candidate's current access rule; None: the offer is a model."""
    return candidate.access if isinstance(candidate.access, ContainerAccess) else None
