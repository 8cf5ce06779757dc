"""The fleet: every host in memory, who is connected, who has a free slot, how fast and how trusted each one is.

One event loop owns it; nothing here waits. A candidate's published figures change only when the measured ones have
moved by more than `PUBLISH_SHARE`, so that noise does not reorder the sorted lists of `routing`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from comptoir.events import EventHub, HostFree, HostOfferChanged, RemoteHostOutcome
from comptoir.hosts.catalog import LISTED_MAX, Catalog, LimitedHosts
from comptoir.hosts.check import believable
from comptoir.hosts.errors import NoFreeSlot, UnknownHost
from comptoir.hosts.host import Host, access_of_candidate, access_of_offer
from comptoir.hosts.pace import PRIOR, Pace
from comptoir.hosts.pages import first_of, matching
from comptoir.hosts.reputation import START, Reputation
from comptoir.hosts.shapes import in_shape
from comptoir.hosts.types import (
    ACTIVE,
    DONE,
    DRAINING,
    EMPTY,
    FAILED,
    LINK,
    LOST,
    OFFLINE,
    HostRow,
    ModelSummary,
    PaceFigures,
    ReputationStory,
)
from comptoir.kinds import Kinds
from comptoir.kit.clock import Clock
from comptoir.link import ModelOffer, Pulse
from comptoir.routing import Candidate, FilterReport, FreeList, Spec, explain, possible

HOST_AWAY_S = 45.0
"""A host offline for this long is gone: half as long again as the heartbeats that the published API requires."""
GONE_A_SWEEP_MAX = 1_000
"""Hosts that are noted as gone in one sweep: after a start, 100,000 of them may be due at once."""
HOST_SILENT_S = 90.0
"""A host silent for this long is offline: three of the heartbeats that the published API requires every 30 s."""
PUBLISH_SHARE = 0.05
SIBLINGS_MAX = 256
"""Most other hosts of an owner that one failure of his moves in the lists (a millisecond or two)."""


class Fleet:
    """All hosts that are registered and not retired."""

    def __init__(
        self,
        clock: Clock,
        *,
        kinds: Kinds | None = None,
        events: EventHub | None = None,
        leases_here: Callable[[bytes], int] = lambda host_id: 0,
        host_silent_s: float = HOST_SILENT_S,
        host_away_s: float = HOST_AWAY_S,
        listed_max: int = LISTED_MAX,
    ) -> None:
        """*leases_here* returns how many jobs of this coordinator a host runs, when it returns from another one."""
        self._clock, self._host_silent_s, self._host_away_s = clock, host_silent_s, host_away_s
        self.kinds = kinds or Kinds()
        """Kinds sold here; offers are priced in their units."""
        self._events, self._leases_here = events or EventHub(), leases_here
        self._hosts: dict[bytes, Host] = {}
        self._lists: dict[str, FreeList] = {}
        self._owned: dict[bytes, dict[bytes, Host]] = {}
        """Hosts by owner, of those that have one."""
        proven = lambda name: self._lists[name].proven_hosts if name in self._lists else 0  # noqa: E731
        self.catalog = Catalog(self.kinds, listed_max=listed_max, merit=proven)
        """What active hosts offer."""
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        """Hosts that are not offline, longest silent first."""
        self._away: OrderedDict[bytes, float] = OrderedDict()
        """Hosts that are offline and not yet gone, with the monotonic time since which they are; longest first."""
        self.limited = LimitedHosts()
        """Numbers of registered hosts that do not take every job."""
        self.active_hosts = 0
        """Number of active hosts, free or busy."""
        self.changed: set[bytes] = set()
        """Hosts whose stored row is out of date; `Hosts.flush` empties it."""
        self.moved: set[bytes] = set()
        """Those of them whose status changed."""
        self.unannounced: set[bytes] | None = None
        """Hosts whose status, slots, offer or figures changed since the last announcement; None: nobody announces."""
        self.quarantined: frozenset[str] = frozenset()
        """Names that nobody is offered, whoever registered them; `hosts.quarantine` changes it."""
        self.chosen: list[tuple[bytes, str]] | None = None
        """Host and model of each assignment since the last announcement; None: nobody announces."""

    # -- who is registered ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._hosts)

    def __iter__(self) -> Iterator[Host]:
        """Iterate over all hosts in the order they were added (by id after a start)."""
        return iter(self._hosts.values())

    def find(self, host_id: bytes) -> Host | None:
        """Return a host, or ``None``."""
        return self._hosts.get(host_id)

    def get(self, host_id: bytes) -> Host:
        """Return a host.

        Raises:
            UnknownHost: none is registered under that id.
        """
        host = self._hosts.get(host_id)
        if host is None:
            raise UnknownHost(host_id)
        return host

    def add(self, row: HostRow) -> Host:
        """Add a registered host, offline until it is seen; a known host is returned unchanged."""
        host = self._hosts.get(row.id)
        if host is None:
            host = self._hosts[row.id] = Host(row)
            self._away[row.id] = self._clock.monotonic_s()
            if row.owner_id is not None:
                self._owned.setdefault(row.owner_id, {})[row.id] = host
            self.limited.count(row.models, 1)
            host.keep_offers(self.quarantined)
            self._offer(host, host.offers)
        return host

    def remove(self, host_id: bytes) -> None:
        """Remove a retired host; an unknown one is ignored."""
        host = self._hosts.get(host_id)
        if host is None:
            return
        self._set_status(host, OFFLINE)
        for model in list(host.candidates):
            self._withdraw(host, model)
        self.catalog.set_resources(host_id, {})
        del self._hosts[host_id]
        self._away.pop(host_id, None)
        owned = self._owned.get(host.row.owner_id or b"", {})
        owned.pop(host_id, None)
        if not owned:
            self._owned.pop(host.row.owner_id or b"", None)
        self.limited.count(host.row.models, -1)
        self.changed.discard(host_id)
        self.moved.discard(host_id)

    def replace_offer(self, host_id: bytes, models: tuple[ModelOffer, ...], slots: int) -> None:
        """Replace what a host offers; running jobs continue, and measurements of models that stay are kept."""
        host = self.get(host_id)
        models = in_shape(host.row.speaks, models)
        if models == host.row.models and slots == host.row.slots:
            return
        self._count(host, -1)
        self.limited.count(host.row.models, -1)
        host.row = replace(host.row, models=models, slots=slots)
        host.keep_offers(self.quarantined)
        self.limited.count(host.row.models, 1)
        self._count(host, 1)
        host.slots.total = slots
        names = {offer.name for offer in host.offers}
        for model in [name for name in host.candidates if name not in names]:
            self._withdraw(host, model)
        self._offer(host, host.offers)
        self.changed.add(host_id)
        self._place(host)
        if self._events.heard(HostOfferChanged):
            self._events.publish(HostOfferChanged(host_id, self._clock.now_ms()))

    # -- who is here ---------------------------------------------------------------------------------------------

    def seen(self, host_id: bytes, pulse: Pulse | None = None) -> None:
        """Note a sign of life (heartbeat, poll, frames); a host of a transport without a link becomes active by it."""
        host = self.get(host_id)
        if host.node_id and host.row.transport != LINK:
            self._take_home(host)
        host.seen_s = self._clock.monotonic_s()
        host.last_seen_ms = self._clock.now_ms()
        self.changed.add(host_id)
        if pulse is not None:
            self._note_pulse(host, pulse)
        wakes = host.status == OFFLINE and (host.row.transport != LINK or host.linked)
        if wakes or host.status != OFFLINE:
            self._seen[host_id] = None
            self._seen.move_to_end(host_id)
        if wakes:
            self._set_status(host, ACTIVE)

    def mark_linked(self, host_id: bytes) -> None:
        """Note that the host's link is up: it takes jobs, even if it was draining."""
        host = self.get(host_id)
        self._take_home(host)
        host.linked, host.came_ms = True, self._clock.now_ms()
        self.seen(host_id)
        self._set_status(host, ACTIVE)

    def unlinked(self, host_id: bytes) -> None:
        """Note that the host's link dropped: no new jobs. Running jobs keep their slots until released."""
        host = self.get(host_id)
        host.linked = False
        self._set_status(host, OFFLINE)

    def drain(self, host_id: bytes) -> None:
        """Give the host no new jobs; it finishes those it has. An offline host stays offline."""
        host = self.get(host_id)
        if host.status == ACTIVE:
            self._set_status(host, DRAINING)

    def resume(self, host_id: bytes) -> None:
        """Take a draining host back."""
        host = self.get(host_id)
        if host.status == DRAINING:
            self._set_status(host, ACTIVE)

    def poll_began(self, host_id: bytes) -> None:
        """Note that a polling host holds one more request open; only while it does can it be given a job."""
        host = self.get(host_id)
        self.seen(host_id)
        if host.slots.waiting is not None:
            host.slots.waiting += 1
            self._place(host)

    def poll_ended(self, host_id: bytes) -> None:
        """Note that a held request ended without a job (`reserve` uses one up itself)."""
        host = self.get(host_id)
        if host.slots.waiting:
            host.slots.waiting -= 1
            self._place(host)

    def silent(self) -> list[Host]:
        """Set hosts offline that were silent for too long, and return them; costs nothing per host that was not.

        With several coordinators, a host whose link is here is not silent, and remote hosts are not judged here.
        """
        limit_s = self._clock.monotonic_s() - self._host_silent_s
        gone = []
        while self._seen:
            host = self._hosts[next(iter(self._seen))]
            if host.seen_s > limit_s:
                break
            if host.node_id:
                # Its own coordinator reports when it is gone; if that coordinator dies, that is noticed too.
                host.seen_s = self._clock.monotonic_s()
                self._seen.move_to_end(host.id)
                continue
            if host.linked and self.unannounced is not None:
                # With several coordinators, a balancer may send the heartbeats to another one while the link is here.
                # The link is pinged, and closes within 40 s of the host's death.
                self.seen(host.id)
                continue
            self._set_status(host, OFFLINE)
            gone.append(host)
        return gone

    def departed(self) -> list[Host]:
        """Note hosts that have been offline for ``host_away_s`` as gone, and return them; no job waits for them.

        A host that was just registered, or loaded at a start, counts as offline since then.
        """
        limit_s = self._clock.monotonic_s() - self._host_away_s
        found: list[Host] = []
        while self._away and len(found) < GONE_A_SWEEP_MAX:
            host_id, since_s = next(iter(self._away.items()))
            if since_s > limit_s:
                break
            del self._away[host_id]
            host = self._hosts[host_id]
            self._note_gone(host, gone=True)
            found.append(host)
        return found

    # -- slots ---------------------------------------------------------------------------------------------------

    def reserve(self, host_id: bytes, model: str, *, prefix_key: bytes | None = None) -> None:
        """Reserve one slot for a job of *model* (on a polling host also one of its held requests).

        Raises:
            UnknownHost: not registered. NoFreeSlot: full, not active, or the model is not offered; nothing changes.
        """
        host = self.get(host_id)
        candidate = host.candidates.get(model)
        if candidate is None or host.slots.free < 1:
            raise NoFreeSlot(host_id, model)
        host.slots.running += 1
        if host.slots.waiting is not None:
            host.slots.waiting -= 1
        self._lists[model].took(candidate, prefix_key)
        if self.chosen is not None and not host.node_id:
            self.chosen.append((host_id, model))
        self._place(host)

    def release(self, host_id: bytes) -> None:
        """Release one slot, however the job ended; a host that was retired meanwhile is ignored."""
        host = self._hosts.get(host_id)
        if host is None or host.node_id:
            return  # A host that moved to another coordinator has its slots counted there.
        if host.slots.running == 0 and self.unannounced is not None:
            # It moved to another coordinator and back while a lease was being closed, so its slots were recounted.
            return
        assert host.slots.running > 0, "a slot is released once for every time it was reserved"
        host.slots.running -= 1
        self._place(host)

    def adopt(self, host_id: bytes) -> None:
        """Count a job that the host already runs (its lease outlived the coordinator), even beyond its slots."""
        host = self.get(host_id)
        host.slots.running += 1
        self._place(host)

    # -- measurements --------------------------------------------------------------------------------------------

    def first_frame(self, host_id: bytes, model: str, elapsed_ms: float) -> None:
        """Record a time from lease to first frame (>= 0)."""
        host = self._hosts.get(host_id)
        if host is not None and model in host.candidates:
            pace = self._pace(host, model)
            if pace.first_frame(elapsed_ms):
                self._publish_pace(host, model, pace)

    def frames(self, host_id: bytes, model: str, gap_ms: float, count: int = 1) -> None:
        """Record that *count* (>= 1) frames came *gap_ms* (>= 0) apart; constant time per batch."""
        host = self._hosts.get(host_id)
        if host is not None and model in host.candidates:
            pace = self._pace(host, model)
            if pace.frames(gap_ms, count):
                self._publish_pace(host, model, pace)

    def outcome(self, host_id: bytes, outcome: str, *, buyer: bytes = b"", tokens: int = 0, paid_uusd: int = 0) -> None:
        """Record how an attempt ended for the host (`OUTCOMES`).

        Args:
            buyer: whose job it was; merit comes only from others than the host and its owner.
            tokens: units that the host delivered.
            paid_uusd: what it earned, without what promotional credit paid for.
        """
        host = self._hosts.get(host_id)
        if host is None:
            return
        if host.node_id:
            self._events.publish(RemoteHostOutcome(host_id, host.node_id, outcome, tokens, buyer, paid_uusd))
            return
        if outcome == DONE:
            host.busy_row = 0
        host.jobs_done += outcome in (DONE, EMPTY)
        host.jobs_failed += outcome == FAILED
        host.jobs_lost += outcome == LOST
        host.tokens_done += tokens
        self.changed.add(host_id)
        if outcome == DONE and not tokens and not paid_uusd:
            return  # An empty answer is no merit, and takes back no fault.
        own = buyer == host_id or (buyer == host.row.owner_id and buyer != b"")
        host.reputation.note(outcome, self._clock.now_ms(), buyer=buyer, own=own, paid_uusd=paid_uusd)
        self.refresh_reputation(host)
        if outcome in (FAILED, LOST) and host.row.owner_id is not None:
            self._doubt_siblings(host, host.row.owner_id)

    def _doubt_siblings(self, host: Host, owner_id: bytes) -> None:
        """Let the owner's hosts that have never answered stand where *host* does, if it stands below the start.

        Otherwise names that were registered beforehand would wash it.
        """
        now_ms, moved, stands = self._clock.now_ms(), 0, Reputation()
        stands.take_over(host.reputation)
        if (score := stands.score(now_ms)) >= START:
            return
        for sibling in self._owned[owner_id].values():
            if not sibling.jobs_done and not sibling.node_id and sibling.reputation.score(now_ms) > score:
                sibling.reputation.take_over(stands)
                self.changed.add(sibling.id)
                self.refresh_reputation(sibling)
                moved += 1
                if moved == SIBLINGS_MAX:
                    return

    def refresh_reputation(self, host: Host) -> None:
        """Publish the host's current reputation if it has moved; to be called now and then for hosts without jobs."""
        score = host.reputation.score(self._clock.now_ms())
        for model, candidate in host.candidates.items():
            if has_moved(candidate.reputation, score):
                candidate.reputation = score
                self._lists[model].moved(candidate)

    def pace(self, host_id: bytes, model: str) -> PaceFigures:
        """Return the measured times of a host with a model; priors when nothing is known."""
        host = self._hosts.get(host_id)
        pace = host.paces.get(model) if host is not None else None
        return pace.figures if pace is not None else PRIOR

    def longest_gap_ms(self, host_id: bytes, model: str) -> float:
        """Return the longest recent pause between two arrivals of a host's frames; 0 when nothing is known."""
        host = self._hosts.get(host_id)
        pace = host.paces.get(model) if host is not None else None
        return pace.longest_gap_ms if pace is not None else 0.0

    def explain_reputation(self, host_id: bytes) -> ReputationStory:
        """Explain a host's reputation."""
        return self.story_of(self.get(host_id))

    def story_of(self, host: Host) -> ReputationStory:
        """Explain the reputation of a host, in the fleet or suspended."""
        return host.reputation.story(host.jobs_done, host.jobs_failed, host.jobs_lost, now_ms=self._clock.now_ms())

    # -- what can run, and what there is -------------------------------------------------------------------------

    def free_list(self, model: str) -> FreeList | None:
        """Return the model's hosts for `routing.choose`, or ``None`` when nobody offers it."""
        return self._lists.get(model)

    def possible(self, spec: Spec, *, gone: bool = False) -> bool:
        """Tell whether any host could run this that is here or was until lately, whether free or busy.

        Args:
            gone: ask about the hosts that have been offline for longer (``host_away_s``).
        """
        hosts = self._lists.get(spec.model)
        return hosts is not None and possible(spec, hosts, gone=gone)

    def explain(self, spec: Spec) -> FilterReport:
        """Count per filter why hosts can't run this."""
        hosts = self._lists.get(spec.model)
        if hosts is None:
            return explain(spec, ())
        return explain(spec, hosts.all.values(), hosts=len(hosts.all))

    def by_status(self) -> dict[str, int]:
        """Return how many hosts have each status; costs nothing per host."""
        here = len(self._seen)
        return {ACTIVE: self.active_hosts, DRAINING: here - self.active_hosts, OFFLINE: len(self._hosts) - here}

    def models(self) -> list[ModelSummary]:
        """Return the models that active hosts offer, by name, bounded; rebuilt only after a change."""
        return self.catalog.models()

    def model(self, name: str) -> ModelSummary | None:
        """Return a model, listed or not; ``None`` when no active host offers it."""
        return self.catalog.model(name)

    def with_container(self, name: str) -> list[Candidate]:
        """Return every registered host that offers this container, online or not."""
        known = self._lists.get(name)
        return [one for one in known.all.values() if access_of_candidate(one) is not None] if known is not None else []

    def resources(self) -> dict[str, bytes]:
        """Return what each container on offer reports about itself, as JSON, by name."""
        return self.catalog.resources(self._serves)

    def _serves(self, host_id: bytes, name: str) -> bool:
        host = self._hosts.get(host_id)
        return host is not None and host.status == ACTIVE and name in host.candidates

    def list_hosts(
        self,
        *,
        limit: int,
        offset: int = 0,
        status: str | None = None,
        model: str | None = None,
        owner_id: bytes | None = None,
    ) -> tuple[list[Host], int]:
        """Return a page of hosts in the order they were added, and how many match in all.

        Of an owner or a model only its own hosts are visited; else those up to the end of the page.
        """
        if model is None and owner_id is None:
            total = len(self._hosts) if status is None else self.by_status()[status]
            return first_of(self._hosts.values(), status, limit=limit, offset=offset), total
        some: Iterable[bytes] = self._owned.get(owner_id, ()) if owner_id is not None else ()
        if owner_id is None and model in self._lists:
            some = self._lists[model].all
        found = matching(map(self._hosts.__getitem__, sorted(some)), status=status, model=model, owner_id=owner_id)
        return found[offset : offset + limit], len(found)

    # -- inside --------------------------------------------------------------------------------------------------

    def _take_home(self, host: Host) -> None:
        """Make a remote host a local one: its slots are counted here from now on, from what runs here."""
        if host.node_id:
            host.node_id = b""
            for candidate in host.candidates.values():
                candidate.remote = False
            host.slots.total = host.row.slots
            host.slots.running = self._leases_here(host.id)
            if host.slots.waiting is not None:
                host.slots.waiting = 0
            self._place(host)

    def _set_status(self, host: Host, status: str) -> None:
        if host.status == status:
            return
        was, host.status = host.status, status
        if ACTIVE in (was, status):
            self.active_hosts += 1 if status == ACTIVE else -1
            # Count only while the status is active: before leaving it, after entering it.
            self.catalog.count(host.offers, 1 if status == ACTIVE else -1)
        if was == OFFLINE:
            self._away.pop(host.id, None)
            self._note_gone(host, gone=False)
        if status == OFFLINE:
            self._seen.pop(host.id, None)
            self._away[host.id] = self._clock.monotonic_s()
            if host.slots.waiting is not None:
                host.slots.waiting = 0
        self.changed.add(host.id)
        self.moved.add(host.id)
        self._place(host, rejoins=was == OFFLINE)

    def _note_gone(self, host: Host, *, gone: bool) -> None:
        host.gone = gone
        for model, candidate in host.candidates.items():
            self._lists[model].note_gone(candidate, gone=gone)

    def _count(self, host: Host, sign: int) -> None:
        if host.status == ACTIVE:
            self.catalog.count(host.offers, sign)

    def _place(self, host: Host, *, rejoins: bool = False) -> None:
        """Recount the host's free slots and update its place in all lists."""
        before = host.slots.free
        host.slots.open = host.status == ACTIVE and not host.rests
        free = host.slots.count()
        if self.unannounced is not None and not host.node_id:
            self.unannounced.add(host.id)
        for model, candidate in host.candidates.items():
            if rejoins:
                self._lists[model].rejoin(candidate)
            else:
                self._lists[model].place(candidate)
        if free > before and not host.node_id:
            self._events.publish(HostFree(host.id))

    def _offer(self, host: Host, models: tuple[ModelOffer, ...]) -> None:
        row, now_ms = host.row, self._clock.now_ms()
        for offer in models:
            hosts = self._lists.get(offer.name)
            if hosts is None:
                hosts = self._lists[offer.name] = FreeList(offer.name)
            since_ms = self.catalog.since_ms
            since_ms[offer.name] = min(row.created_ms, since_ms.get(offer.name, row.created_ms))
            candidate = host.candidates.get(offer.name)
            joins = candidate is None
            if candidate is None:
                candidate = Candidate(row.id, offer.name, host.slots, hosts.next_order())
                candidate.reputation, candidate.gone = host.reputation.score(now_ms), host.gone
                host.candidates[offer.name] = candidate
            before, now = access_of_candidate(candidate), access_of_offer(offer)
            self.catalog.change_access(offer.name, before, now)
            host.describe_offer(candidate, offer, self.kinds)
            host.describe_machine(candidate)
            if joins:
                hosts.add(candidate)
            else:
                hosts.moved(candidate)

    def _withdraw(self, host: Host, model: str) -> None:
        self.catalog.change_access(model, access_of_candidate(host.candidates.pop(model)), None)
        host.paces.pop(model, None)
        hosts = self._lists[model]
        hosts.remove(host.id)
        if not hosts.all:
            del self._lists[model]
            del self.catalog.since_ms[model]

    def _note_pulse(self, host: Host, pulse: Pulse) -> None:
        pulse = believable(pulse)
        host.gpu_utilization = pulse.gpu_utilization
        gpu, vram_mib = pulse.gpu or host.row.gpu, pulse.vram_mib or host.row.vram_mib
        if (gpu, vram_mib) != (host.row.gpu, host.row.vram_mib):
            host.row = replace(host.row, gpu=gpu, vram_mib=vram_mib)
            self._offer(host, host.offers)

    def _pace(self, host: Host, model: str) -> Pace:
        pace = host.paces.get(model)
        if pace is None:
            pace = host.paces[model] = Pace()
        return pace

    def _publish_pace(self, host: Host, model: str, pace: Pace) -> None:
        figures = pace.read()
        candidate = host.candidates[model]
        if self.unannounced is not None:
            self.unannounced.add(host.id)
        first, inter = figures.first_frame_p50_ms, figures.inter_frame_p50_ms
        if has_moved(candidate.first_frame_ms, first) or has_moved(candidate.inter_frame_ms, inter):
            candidate.first_frame_ms, candidate.inter_frame_ms = first, inter
            self._lists[model].moved(candidate)


def has_moved(published: float, truth: float) -> bool:
    """Tell whether *truth* differs from what was published by more than `PUBLISH_SHARE`."""
    return abs(truth - published) > PUBLISH_SHARE * published
