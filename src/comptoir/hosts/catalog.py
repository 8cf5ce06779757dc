"""The catalog: which models and containers active hosts offer, answered without visiting the hosts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest
from typing import Any, TypeVar

from msgspec.structs import replace

from comptoir.hosts.access import AccessRequest, ContainerAccess
from comptoir.hosts.tally import ContainerTally, ModelTally, WorkTally
from comptoir.hosts.types import ContainerSummary, ModelSummary, WorkSummary
from comptoir.kinds import TOKEN_OUT, Kinds
from comptoir.link import ModelOffer

Key = TypeVar("Key")
LISTED_MAX = 1_000
"""Names in one published list, unless the setting ``models_listed_max`` says otherwise."""

WORDY_MAX = 100
"""Containers on offer up to which their list has all that they say of themselves; with more it is cut."""

WORDS_CHARS_MAX = 200
"""Characters of a container's description, and of its image, in the list of many."""

RESOURCES_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes of what all containers together report about themselves that one answer passes on."""

Tallied = TypeVar("Tallied", ContainerTally, ModelTally, WorkTally)


class LimitedHosts:
    """Numbers of registered hosts, here or not, with an offer that does not take every job, or may not."""

    def __init__(self) -> None:
        self.text_only = 0
        """Those that take only text-only jobs."""
        self.no_promotions = 0
        """Those that take no promotional credit."""
        self.capable = 0
        """Those that say anything of their capabilities."""

    def count(self, models: Sequence[ModelOffer], sign: int) -> None:
        """Count a host with these offers (*sign* 1), or no longer (-1)."""
        self.text_only += sign * any(offer.text_only for offer in models)
        self.no_promotions += sign * any(offer.no_promotions for offer in models)
        self.capable += sign * any(offer.capabilities for offer in models)


class Catalog:
    """Counts of what active hosts offer, and what their containers report about themselves. The fleet maintains it."""

    def __init__(
        self, kinds: Kinds, *, listed_max: int = LISTED_MAX, merit: Callable[[str], int] = lambda name: 0
    ) -> None:
        """*merit* returns how many proven hosts a name has: with too many names, those with most are listed."""
        self._kinds = kinds
        self._listed_max, self._merit = listed_max, merit
        self._models: dict[str, ModelTally] = {}
        self._containers: dict[str, ContainerTally] = {}
        self._access: dict[str, Counter[ContainerAccess]] = {}
        """By container: the access rules of its registered hosts, online or not, with the number of hosts of each."""
        self._resources: dict[str, dict[bytes, bytes]] = {}
        """By container and host: what the container reports about itself."""
        self._work: dict[tuple[str, ...], WorkTally] = {}
        """By name and units."""
        self._model_list: list[ModelSummary] | None = None
        self._work_list: list[WorkSummary] | None = None
        self._container_list: list[ContainerSummary] | None = None
        self.since_ms: dict[str, int] = {}
        """By name: when the first of its hosts was registered."""

    def count(self, offers: tuple[ModelOffer, ...], sign: int) -> None:
        """Count the offers of a host that became active (*sign* 1) or is no longer active (-1)."""
        self._model_list = self._container_list = self._work_list = None
        for offer in offers:
            prices = self._kinds.prices(offer)
            said = replace(offer, capabilities=self._kinds.capabilities(offer)) if offer.capabilities else offer
            if offer.container is not None:
                _count(self._containers, offer.name, ContainerTally, (offer, self._kinds.rates(offer)), sign=sign)
            elif prices and TOKEN_OUT.name not in prices:
                # One name may be sold in several units, at different hosts.
                _count(self._work, (offer.name, *prices), WorkTally, (said, prices), sign=sign)
            else:
                _count(self._models, offer.name, ModelTally, (said, self._kinds.rates(offer)), sign=sign)

    def models(self) -> list[ModelSummary]:
        """Return the models on offer that are sold by the token, by name; rebuilt only after a change.

        Anybody can register hosts with any names, so at most ``models_listed_max`` are listed: those with most proven
        hosts, then with most hosts, then known for longest. `model` finds the others too.
        """
        if self._model_list is None:
            names = self.foremost({name: tally.hosts for name, tally in self._models.items()}, self._listed_max)
            self._model_list = [self._models[name].summary(self.since_ms[name]) for name in sorted(names)]
        return self._model_list

    @property
    def model_count(self) -> int:
        """How many models there are, listed or not."""
        return len(self._models)

    def foremost(self, hosts: Mapping[str, int], most: int) -> list[str]:
        """Return the foremost *most* of the names in *hosts* (the number of hosts of each), in their order there."""
        if len(hosts) <= most:
            return list(hosts)

        def rank(name: str) -> tuple[int, int, int, str]:
            return -self._merit(name), -hosts[name], self.since_ms.get(name, 0), name

        chosen = frozenset(nsmallest(most, hosts, key=rank))
        return [name for name in hosts if name in chosen]

    def model(self, name: str) -> ModelSummary | None:
        """Return a model, listed or not; ``None`` when no active host offers it."""
        tally = self._models.get(name)
        return tally.summary(self.since_ms[name]) if tally is not None else None

    def containers(self) -> list[ContainerSummary]:
        """Return the containers on offer, by name; bounded and cached as `models`."""
        if self._container_list is None:
            names = self.foremost({name: tally.hosts for name, tally in self._containers.items()}, self._listed_max)
            most = None if len(self._containers) <= WORDY_MAX else WORDS_CHARS_MAX
            self._container_list = [self._containers[name].summary(words_max=most) for name in sorted(names)]
        return self._container_list

    @property
    def container_count(self) -> int:
        """How many containers there are, listed or not."""
        return len(self._containers)

    def container(self, name: str) -> ContainerSummary | None:
        """Return a container, listed or not; ``None`` when no active host offers it."""
        tally = self._containers.get(name)
        return tally.summary() if tally is not None else None

    def work(self) -> list[WorkSummary]:
        """Return what is on offer in other units, by name; bounded and cached as `models`."""
        if self._work_list is None:
            hosts: Counter[str] = Counter()
            for (name, *_), tally in self._work.items():
                hosts[name] += tally.hosts
            names = frozenset(self.foremost(hosts, self._listed_max))
            self._work_list = [tally.summary() for key, tally in sorted(self._work.items()) if key[0] in names]
        return self._work_list

    @property
    def work_count(self) -> int:
        """How many names are on offer in other units, each counted once for each set of units, listed or not."""
        return len(self._work)

    def work_named(self, name: str) -> list[WorkSummary]:
        """Return what is on offer under one name in other units, listed or not."""
        return [tally.summary() for key, tally in sorted(self._work.items()) if key[0] == name]

    def change_access(self, name: str, before: ContainerAccess | None, now: ContainerAccess | None) -> None:
        """Note a registered host's new access rule for *name*, and the one *before*; None: it has no such container."""
        if before == now:
            return
        doors = self._access.setdefault(name, Counter())
        if now is not None:
            doors[now] += 1
        if before is not None:
            doors[before] -= 1
            if not doors[before]:
                del doors[before]
        if not doors:
            del self._access[name]

    def access_of(self, name: str) -> list[ContainerAccess]:
        """Return the access rules of a container's hosts; empty: no registered host has it."""
        return list(self._access.get(name, ()))

    def relevant_part(self, name: str, entry: object | None) -> object | None:
        """Return the part of *entry* that a container's hosts look at: the caller only if some host has networks."""
        if (
            isinstance(entry, AccessRequest)
            and entry.caller
            and not any(door.networks for door in self._access.get(name, ()))
        ):
            return entry._replace(caller="")
        return entry

    def set_resources(self, host_id: bytes, of: dict[str, bytes]) -> None:
        """Set what a host's containers report about themselves (their JSON, unchanged), replacing the last report."""
        for name in list(self._resources):
            self._resources[name].pop(host_id, None)
            if not self._resources[name]:
                del self._resources[name]
        for name, body in of.items():
            self._resources.setdefault(name, {})[host_id] = body

    def resources_by_host(self) -> dict[bytes, dict[str, bytes]]:
        """Return what containers report about themselves, by host."""
        by_host: dict[bytes, dict[str, bytes]] = {}
        for name, said in self._resources.items():
            for host_id, body in said.items():
                by_host.setdefault(host_id, {})[name] = body
        return by_host

    def resources(self, serves: Callable[[bytes, str], bool]) -> dict[str, bytes]:
        """Return what each listed container reports about itself, from the first host that *serves* it now.

        Beyond `RESOURCES_BYTES_MAX` in all the rest is left out.
        """
        found: dict[str, bytes] = {}
        left = RESOURCES_BYTES_MAX
        for name in [one.name for one in self.containers()]:
            said = self._resources.get(name, {})
            body = next((body for host_id, body in said.items() if serves(host_id, name)), None)
            if body is not None and len(body) <= left:
                found[name] = body
                left -= len(body)
        return found


def _count(
    tallies: dict[Key, Tallied], key: Key, new: Callable[[str], Tallied], offered: tuple[ModelOffer, Any], *, sign: int
) -> None:
    """Add an offer and its prices to a tally, or remove it; a tally without hosts is deleted."""
    offer, prices = offered
    if sign > 0:
        tallies.setdefault(key, new(offer.name)).add(offer, prices)
        return
    tally = tallies[key]
    tally.remove(offer, prices)
    if not tally.hosts:
        del tallies[key]
