"""Ids of container sets: computed on request, with a bounded cache from id back to set.

A hash can't be inverted, so reading one from a request needs the possible sets. Infernet's own node hashes every
permutation of its containers (ten of them: 9.9 million); here a set is known once it has been named.
"""

from collections import OrderedDict
from collections.abc import Sequence

from comptoir.chain.curve import keccak256
from comptoir.chain.errors import BadContainerSet

SET_BYTES_MAX = 4096
"""Most text of one set, commas included: 50 containers with long names."""

SETS_MAX = 1024
"""Sets that are cached, at most 4 MiB of text in all; a node offers tens."""

SEPARATOR = ","


def containers_id(ids: Sequence[str]) -> bytes:
    """Return the 32 bytes that the contracts call ``containerId``: keccak256(abi.encode(string "A,B")).

    The order matters: A,B is a different chain of containers than B,A.

    Raises:
        BadContainerSet: no id, an empty id, one with a comma (it would look like two), or more than `SET_BYTES_MAX`.
        ChainExtraMissing: the extra is not installed.
    """
    assert not isinstance(ids, str), "a list of ids, not one id"
    ids = tuple(ids)
    if not ids:
        raise BadContainerSet(ids, "must name at least one")
    for one in ids:
        if not one or SEPARATOR in one:
            raise BadContainerSet(ids, f"an id must not be empty or contain a comma: {one!r}")
    try:
        text = SEPARATOR.join(ids).encode()
    except UnicodeEncodeError as error:
        raise BadContainerSet(ids, "an id must be text that UTF-8 can write") from error
    if len(text) > SET_BYTES_MAX:
        raise BadContainerSet(ids, f"must be at most {SET_BYTES_MAX} bytes together, not {len(text)}")
    # One dynamic argument: where it begins, how long it is, itself, zeros up to a whole word.
    padding = bytes(-len(text) % 32)
    return keccak256((32).to_bytes(32, "big") + len(text).to_bytes(32, "big") + text + padding)


class KnownSets:
    """The `SETS_MAX` most recently requested container sets, by id."""

    def __init__(self, *, sets_max: int = SETS_MAX) -> None:
        assert sets_max > 0
        self._sets_max = sets_max
        self._sets: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sets)

    def id_of(self, ids: Sequence[str]) -> bytes:
        """Return `containers_id` of *ids*, and remember the set. Idempotent.

        Raises (nothing is remembered then):
            BadContainerSet: as for `containers_id`.
            ChainExtraMissing: the extra is not installed.
        """
        found = containers_id(ids)
        self._sets[found] = tuple(ids)
        self._sets.move_to_end(found)
        if len(self._sets) > self._sets_max:
            self._sets.popitem(last=False)
        return found

    def find(self, containers: bytes) -> tuple[str, ...] | None:
        """Return the set with this id, in order; ``None`` if it was never requested, or too long ago."""
        found = self._sets.get(containers)
        if found is not None:
            self._sets.move_to_end(containers)
        return found
