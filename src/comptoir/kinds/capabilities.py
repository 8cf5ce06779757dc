"""Capabilities: what an offer can do beyond its kinds, by name, and how that is known.

A kind says which there are (`Kind.capabilities`) and which a job asks for (`Kind.asks`). An offer says of each what is
known of it; of one that it doesn't name nothing is known, which is not a no.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

PROBED = "probed"
"""It was asked for, and seen."""
CLAIMED = "claimed"
"""The server or the host's owner says so; nobody has seen it."""
LACKING = "lacking"
"""It was refused, or the server says that it can't."""

STATES = (PROBED, CLAIMED, LACKING)

KNOWN_MAX = 4_096
"""Different sets of capabilities that are kept once, however many hosts say the same."""

NONE: frozenset[str] = frozenset()


@lru_cache(KNOWN_MAX)
def _named(said: tuple[tuple[str, str], ...], states: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for name, state in said if state in states)


def able(said: Mapping[str, str]) -> frozenset[str]:
    """Return what an offer that says this can do, probed or claimed."""
    return _named(tuple(said.items()), (PROBED, CLAIMED)) if said else NONE


def lacking(said: Mapping[str, str]) -> frozenset[str]:
    """Return what an offer that says this is known not to do."""
    return _named(tuple(said.items()), (LACKING,)) if said else NONE


def words(said: Mapping[str, str]) -> str:
    """Say for people what an offer can do: ``tools, schema, vision (claimed)``; empty if it says nothing."""
    probed = [name for name, state in said.items() if state == PROBED]
    return ", ".join(probed + [f"{name} (claimed)" for name, state in said.items() if state == CLAIMED])


def best_known(offers: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what is known of several offers together: of each capability the best that any says.

    `LACKING` only if all of them say so, since one that says nothing may have it.
    """
    said = list(offers)
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for one in said for name in one):
        states = [one.get(name, "") for one in said]
        if PROBED in states or CLAIMED in states:
            found[name] = PROBED if PROBED in states else CLAIMED
        elif all(state == LACKING for state in states):
            found[name] = LACKING
    return found
