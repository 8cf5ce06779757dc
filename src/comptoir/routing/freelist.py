"""The hosts of one model, and those of them with a free slot kept sorted for every strategy in use.

Lists are built when a strategy is first used, updated on every change, and dropped when they are no longer used.
The fleet calls the methods that change them; `rank` only searches.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from comptoir.routing.blocks import Entry, SortedBlocks
from comptoir.routing.filters import is_able, passes
from comptoir.routing.score import BONUS_PREFIX, NOMINAL, STRIDE, Key, Preference, moved, size_of
from comptoir.routing.types import PROVEN_REPUTATION, Candidate, Size, Spec

PREFIXES_MAX = 4096
"""Prompt prefixes remembered per model; the least recently served is forgotten first."""
PREFIX_HOSTS_MAX = 8
"""Hosts remembered per prefix, the latest ones: bounds the work per job."""
EXPLORE_EVERY = 20
"""While proven hosts are free, one job in so many may go to a newcomer, if it is the best by the strategy."""
DISTRUSTED_REPUTATION = 0.15
"""Reputation below which a host is no newcomer to be tried but one that was: two failures, or one loss, and nothing
else. It gets no turn while proven hosts are free."""
IDLE_UPDATES_MIN = 4096
"""A list is dropped after so many updates without a search (four times its length if that is more)."""


class Index:
    """The free hosts, either the proven ones or the newcomers, sorted for one strategy and size class."""

    __slots__ = ("entries", "idle", "list", "preference", "proven", "size")

    def __init__(self, preference: Preference, size: Size, candidates: Iterator[Candidate], *, proven: bool) -> None:
        self.preference = preference
        self.size = size
        self.proven = proven
        self.entries: dict[Candidate, Entry] = {}
        for candidate in candidates:
            if candidate.proven is not proven:
                continue
            self.entries[candidate] = (*preference.key(candidate, size), candidate.order, candidate)
        self.list = SortedBlocks(self.entries.values())
        self.idle = 0

    def place(self, candidate: Candidate, *, free: bool, moved: bool) -> None:
        """Insert, remove or move *candidate*; *moved*: the bounds of its block may be too narrow."""
        self.idle += 1
        held = self.entries.get(candidate)
        if not free or candidate.proven is not self.proven:
            if held is not None:
                self.list.delete(held)
                del self.entries[candidate]
            return
        key = self.preference.key(candidate, self.size)
        if held is not None:
            if not moved and held[0] == key[0] and held[1] == key[1]:
                return
            self.list.delete(held)
        entry = self.entries[candidate] = (key[0], key[1], candidate.order, candidate)
        self.list.insert(entry)


class FreeList:
    """All hosts that offer one model (`all`), the free ones sorted, and which of them recently served which prompt."""

    __slots__ = (
        "_everyone",
        "_free",
        "_gone",
        "_indexes",
        "_newcomers",
        "_order",
        "_picks_floor",
        "_prefixes",
        "_turn",
        "_unexplored",
        "_virtual_time",
        "all",
        "model",
    )

    def __init__(self, model: str) -> None:
        self.model = model
        self.all: dict[bytes, Candidate] = {}
        """Candidates by host id, free or not, open or not."""
        self._everyone, self._gone = SortedBlocks(), SortedBlocks()
        self._free: dict[Candidate, None] = {}
        self._indexes: dict[tuple[str, Size, bool], Index] = {}
        self._prefixes: OrderedDict[bytes, OrderedDict[Candidate, None]] = OrderedDict()
        self._order = self._turn = self._virtual_time = self._picks_floor = 0
        self._newcomers = self._unexplored = 0
        """Hosts in `all` that are not proven; and jobs given to proven ones since a newcomer last got one."""

    @property
    def free_hosts(self) -> int:
        """Number of hosts with a free slot."""
        return len(self._free)

    @property
    def proven_hosts(self) -> int:
        """Number of hosts that are proven, free or not, here or not."""
        return len(self.all) - self._newcomers

    @property
    def hosts_here(self) -> int:
        """Number of hosts that are here or were until lately, free or not."""
        return self._everyone.size

    @property
    def lists_kept(self) -> int:
        """Number of sorted lists that are maintained; the cost of a change grows with it."""
        return len(self._indexes)

    def free(self) -> Iterator[Candidate]:
        """Iterate over the hosts with a free slot, in no particular order."""
        return iter(self._free)

    def next_order(self) -> int:
        """Return the `order` for the next candidate to join."""
        self._order += 1
        return self._order

    def add(self, candidate: Candidate) -> None:
        """Add *candidate* (or replace the same host's); it starts level with the others under every strategy."""
        assert candidate.model == self.model
        old = self.all.get(candidate.host_id)
        if old is not None:
            self.remove(candidate.host_id)
        self._turn += 1
        candidate.turn = old.turn if old is not None else self._turn
        candidate.picks = old.picks if old is not None else self._picks_floor
        candidate.virtual_time = old.virtual_time if old is not None else 0  # `place` lifts it to the present.
        self.all[candidate.host_id] = candidate
        candidate.proven = candidate.reputation >= PROVEN_REPUTATION
        self._newcomers += not candidate.proven
        self._home(candidate).insert(_joined(candidate))
        self.place(candidate)

    def remove(self, host_id: bytes) -> None:
        """Remove a host; an unknown one is ignored."""
        candidate = self.all.pop(host_id, None)
        if candidate is None:
            return
        self._newcomers -= not candidate.proven
        self._home(candidate).delete(_joined(candidate))
        self._put(candidate, free=False, moved=False)

    def note_gone(self, candidate: Candidate, *, gone: bool) -> None:
        """Note that the host of *candidate* has been offline for too long to wait for, or is back."""
        if candidate.gone != gone:
            self._home(candidate).delete(_joined(candidate))
            candidate.gone = gone
            self._home(candidate).insert(_joined(candidate))

    def place(self, candidate: Candidate) -> None:
        """Update the lists after the candidate's slots or published figures changed."""
        free = candidate.slots.free > 0
        if free and candidate not in self._free:
            # A host that was full or offline must not catch up in a burst: it re-enters at the current virtual time.
            candidate.virtual_time = max(candidate.virtual_time, self._virtual_time)
        self._put(candidate, free=free, moved=False)

    def moved(self, candidate: Candidate) -> None:
        """Update the lists after a price, a published figure or anything that a filter looks at changed."""
        moved(candidate)
        if (proven := candidate.reputation >= PROVEN_REPUTATION) is not candidate.proven:
            candidate.proven = proven
            self._newcomers += -1 if proven else 1
        self._home(candidate).widen(_joined(candidate))
        self._put(candidate, free=candidate.slots.free > 0, moved=True)

    def rejoin(self, candidate: Candidate) -> None:
        """Start a host that was offline level with the others under `equal_weighted`, then place it."""
        candidate.picks = max(candidate.picks, self._picks_floor)
        self.place(candidate)

    def took(self, candidate: Candidate, prefix_key: bytes | None = None) -> None:
        """Note that *candidate* was given a job and had its turn. Call before `place`."""
        self._turn += 1
        candidate.turn = self._turn
        self._picks_floor = max(self._picks_floor, candidate.picks)
        candidate.picks += 1
        self._virtual_time = max(self._virtual_time, candidate.virtual_time)
        candidate.virtual_time += STRIDE // candidate.weight
        self._unexplored = self._unexplored + 1 if candidate.proven else 0
        if prefix_key is not None:
            self._remember(prefix_key, candidate)

    def best(self, spec: Spec, preference: Preference, limit: int) -> list[tuple[Key, Candidate]]:
        """Return the *limit* best free hosts that pass every filter, best first, with the bonus in their keys.

        Newcomers come after all proven hosts, unless it is their turn (`explores`): then the strategy alone decides.
        Among either, hosts of which it is not known whether they have the `Spec.capabilities` come after those that do.
        Exact: hosts with a bonus are examined one by one (`PREFIX_HOSTS_MAX` at most); of the others, the first in list
        order that passes is the best.
        """
        size = size_of(spec) if preference.sized else NOMINAL
        allow = spec.needs.allow if spec.needs is not None else None
        if allow is not None:
            named = (self.all[host_id] for host_id in allow if host_id in self.all)
            found = [(preference.key(c, size), c) for c in named if c.slots.free > 0 and passes(spec, c)]
        else:
            newcomers, found = self._newcomers, []
            if newcomers < len(self.all):
                found = self._first(spec, self._index(preference, size, proven=True), limit)
            if newcomers and not spec.proven and (len(found) < limit or self._unexplored >= EXPLORE_EVERY - 1):
                found = self._with_newcomers(spec, preference, size, found, limit=limit)
        holders = self.holders(spec.prefix_key) if spec.prefix_key is not None else ()
        if not holders and len(found) < 2:
            return found
        keys = {c: key for key, c in found}
        for c in holders:
            if c in keys or (c.slots.free > 0 and passes(spec, c)):
                measure, minus_score = preference.key(c, size)
                keys[c] = (measure, minus_score - BONUS_PREFIX)
        ranked = sorted(
            (allow is None and self.comes_last(c), not is_able(spec, c), key, c.order, c) for c, key in keys.items()
        )
        return [(key, c) for _, _, key, _, c in ranked[:limit]]

    @property
    def explores(self) -> bool:
        """Whether the next job may go to a newcomer although a proven host is free (`EXPLORE_EVERY`)."""
        return self._unexplored >= EXPLORE_EVERY - 1

    def comes_last(self, candidate: Candidate) -> bool:
        """Tell whether *candidate* gets the next job only if no other host is free for it."""
        return not (candidate.proven or (self.explores and candidate.reputation >= DISTRUSTED_REPUTATION))

    def _with_newcomers(
        self, spec: Spec, preference: Preference, size: Size, proven: list[tuple[Key, Candidate]], *, limit: int
    ) -> list[tuple[Key, Candidate]]:
        """Return *proven*, the best proven hosts, with the best newcomers after or, if it is their turn, among them."""
        index = self._index(preference, size, proven=False)
        if not self.explores:
            return proven + self._first(spec, index, limit - len(proven))
        newcomers = self._first(spec, index, limit, least=DISTRUSTED_REPUTATION)
        found = sorted(proven + newcomers, key=lambda one: (not is_able(spec, one[1]), one[0], one[1].order))[:limit]
        if len(found) < limit:
            all_new = self._first(spec, index, limit + len(newcomers))
            found += [one for one in all_new if self.comes_last(one[1])][: limit - len(found)]
        return found

    def possible(self, spec: Spec, *, gone: bool = False) -> bool:
        """Tell whether any host passes every filter, free or not, open or not; whole blocks may be skipped.

        Args:
            gone: ask about the hosts that no job waits for, instead of all others.
        """
        if spec.needs is not None and spec.needs.allow is not None:
            named = (self.all[host_id] for host_id in spec.needs.allow if host_id in self.all)
            return any(candidate.gone == gone and passes(spec, candidate) for candidate in named)
        among = self._gone if gone else self._everyone
        blocks = (block for block in among.blocks if block.may_pass(spec))
        return any(passes(spec, entry[3]) for block in blocks for entry in block.entries)

    def holders(self, prefix_key: bytes | None) -> tuple[Candidate, ...]:
        """Return the hosts that recently served a prompt with this prefix."""
        held = self._prefixes.get(prefix_key) if prefix_key is not None else None
        return tuple(c for c in held if self.all.get(c.host_id) is c) if held else ()

    def _home(self, candidate: Candidate) -> SortedBlocks:
        return self._gone if candidate.gone else self._everyone

    def _first(self, spec: Spec, index: Index, limit: int, *, least: float = 0.0) -> list[tuple[Key, Candidate]]:
        if not spec.capabilities:
            return _scan(spec, index, limit, least=least, check=passes)
        found = _scan(spec, index, limit, least=least, check=_passes_able)
        if len(found) < limit:
            found += _scan(spec, index, limit - len(found), least=least, check=_passes_unknown)
        return found

    def _index(self, preference: Preference, size: Size, *, proven: bool) -> Index:
        name = (preference.name, size, proven)
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = Index(preference, size, iter(self._free), proven=proven)
        index.idle = 0
        return index

    def _put(self, candidate: Candidate, *, free: bool, moved: bool) -> None:
        if free:
            self._free[candidate] = None
        else:
            self._free.pop(candidate, None)
        unused = None
        for name, index in self._indexes.items():
            index.place(candidate, free=free, moved=moved)
            if index.idle > IDLE_UPDATES_MIN and index.idle > 4 * index.list.size:
                unused = name
        if unused is not None:
            del self._indexes[unused]

    def _remember(self, prefix_key: bytes, candidate: Candidate) -> None:
        holders = self._prefixes.get(prefix_key)
        if holders is None:
            holders = self._prefixes[prefix_key] = OrderedDict()
            if len(self._prefixes) > PREFIXES_MAX:
                self._prefixes.popitem(last=False)
        else:
            self._prefixes.move_to_end(prefix_key)
        holders[candidate] = None
        holders.move_to_end(candidate)
        if len(holders) > PREFIX_HOSTS_MAX:
            holders.popitem(last=False)


def _scan(
    spec: Spec, index: Index, limit: int, *, least: float, check: Callable[[Spec, Candidate], bool]
) -> list[tuple[Key, Candidate]]:
    found: list[tuple[Key, Candidate]] = []
    for block in index.list.blocks:
        if block.reputation < least or not block.may_pass(spec):
            continue
        if check is _passes_able and not spec.capabilities <= block.able:
            continue
        for measure, minus_score, _, candidate in block.entries:
            if candidate.reputation >= least and check(spec, candidate):
                found.append(((measure, minus_score), candidate))
                if len(found) >= limit:
                    return found
    return found


def _passes_able(spec: Spec, candidate: Candidate) -> bool:
    return is_able(spec, candidate) and passes(spec, candidate)


def _passes_unknown(spec: Spec, candidate: Candidate) -> bool:
    return not is_able(spec, candidate) and passes(spec, candidate)


def _joined(candidate: Candidate) -> Entry:
    """Return the candidate's entry in the list of all hosts, which is in order of joining."""
    return (0.0, 0.0, candidate.order, candidate)
