"""Counts that are updated on every change, so that listing the models never visits the hosts."""

from collections import Counter

from comptoir.hosts.types import ContainerSummary, ModelSummary, WorkSummary
from comptoir.kinds.capabilities import best_known
from comptoir.link import ContainerCard, ModelOffer

Face = tuple[bool, bool, str, str]
"""What is published about a container: external, proofs, description, image."""


class Tally:
    """A multiset of numbers with its smallest and largest; meant for few distinct values, many of each."""

    __slots__ = ("_counts", "_ends")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._ends: tuple[int, int] | None = None

    def add(self, value: int) -> None:
        """Count *value* once more."""
        self._counts[value] = self._counts.get(value, 0) + 1
        if self._ends is not None:
            self._ends = (min(self._ends[0], value), max(self._ends[1], value))

    def remove(self, value: int) -> None:
        """Count *value* once less; it must be there."""
        left = self._counts[value] - 1
        if left:
            self._counts[value] = left
            return
        del self._counts[value]
        if self._ends is not None and value in self._ends:
            self._ends = None

    def ends(self) -> tuple[int, int]:
        """Return smallest and largest; there must be one."""
        if self._ends is None:
            self._ends = (min(self._counts), max(self._counts))
        return self._ends


class ContainerTally:
    """What the active hosts offer of one container."""

    __slots__ = ("faces", "hosts", "name", "prices")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts = 0
        self.prices = Tally()
        self.faces: dict[Face, int] = {}

    def add(self, offer: ModelOffer, rates: tuple[int, int]) -> None:
        """A host with this offer became active."""
        self.hosts += 1
        self.prices.add(rates[1])
        face = _face(offer.container)
        self.faces[face] = self.faces.get(face, 0) + 1

    def remove(self, offer: ModelOffer, rates: tuple[int, int]) -> None:
        """A host with this offer is no longer active."""
        self.hosts -= 1
        self.prices.remove(rates[1])
        face = _face(offer.container)
        self.faces[face] -= 1
        if not self.faces[face]:
            del self.faces[face]

    def summary(self, *, words_max: int | None = None) -> ContainerSummary:
        """Return the published summary; there must be an active host. Where hosts differ, the majority decides.

        Description and image are cut to *words_max* characters.
        """
        best = max(self.faces, key=lambda face: (self.faces[face], face))
        return ContainerSummary(
            name=self.name,
            available_hosts=self.hosts,
            external=any(external for external, *_ in self.faces),
            generates_proofs=any(proofs for _, proofs, *_ in self.faces),
            description=best[2][:words_max],
            image=best[3][:words_max],
            min_price_uusd_per_mrun=self.prices.ends()[0],
        )


def _face(card: ContainerCard | None) -> Face:
    assert card is not None, "a container comes with a card"
    return card.external, card.generates_proofs, card.description, card.image


class ModelTally:
    """What the active hosts offer of one model."""

    __slots__ = ("capabilities", "contexts", "hosts", "kinds", "name", "prices_in", "prices_out")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts = 0
        self.capabilities: Counter[tuple[tuple[str, str], ...]] = Counter()
        """What hosts say of theirs, with the number of hosts that say so."""
        self.prices_in, self.prices_out, self.contexts = Tally(), Tally(), Tally()
        self.kinds: dict[str, int] = {}

    def add(self, offer: ModelOffer, rates: tuple[int, int]) -> None:
        """A host with this offer became active."""
        self.hosts += 1
        self.prices_in.add(rates[0])
        self.prices_out.add(rates[1])
        self.contexts.add(offer.context_tokens)
        self.capabilities[tuple(offer.capabilities.items())] += 1
        for kind in offer.kinds:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def remove(self, offer: ModelOffer, rates: tuple[int, int]) -> None:
        """A host with this offer is no longer active."""
        self.hosts -= 1
        self.prices_in.remove(rates[0])
        self.prices_out.remove(rates[1])
        self.contexts.remove(offer.context_tokens)
        self.capabilities[tuple(offer.capabilities.items())] -= 1
        for kind in offer.kinds:
            self.kinds[kind] -= 1

    def summary(self, since_ms: int) -> ModelSummary:
        """Return the published summary; there must be an active host."""
        kinds = tuple(sorted(kind for kind, count in self.kinds.items() if count))
        return ModelSummary(
            self.name,
            self.hosts,
            self.prices_in.ends()[0],
            self.prices_out.ends()[0],
            self.contexts.ends()[1],
            kinds,
            since_ms,
            best_known(map(dict, +self.capabilities)),
        )


class WorkTally:
    """What the active hosts offer under one name in units other than tokens."""

    __slots__ = ("capabilities", "hosts", "kinds", "name", "prices")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts = 0
        self.capabilities: Counter[tuple[tuple[str, str], ...]] = Counter()
        """What hosts say of theirs, with the number of hosts that say so."""
        self.prices: dict[str, Tally] = {}
        self.kinds: Counter[str] = Counter()

    def add(self, offer: ModelOffer, prices: dict[str, int]) -> None:
        """A host with this offer became active."""
        self.hosts += 1
        self.kinds.update(offer.kinds)
        self.capabilities[tuple(offer.capabilities.items())] += 1
        for unit, rate in prices.items():
            self.prices.setdefault(unit, Tally()).add(rate)

    def remove(self, offer: ModelOffer, prices: dict[str, int]) -> None:
        """A host with this offer is no longer active."""
        self.hosts -= 1
        self.kinds.subtract(offer.kinds)
        self.capabilities[tuple(offer.capabilities.items())] -= 1
        for unit, rate in prices.items():
            self.prices[unit].remove(rate)

    def summary(self) -> WorkSummary:
        """Return the published summary; there must be an active host."""
        return WorkSummary(
            name=self.name,
            available_hosts=self.hosts,
            prices={unit: tally.ends()[0] for unit, tally in self.prices.items()},
            kinds=tuple(sorted(+self.kinds)),
            capabilities=best_known(map(dict, +self.capabilities)),
        )
