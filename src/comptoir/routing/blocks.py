"""A sorted list in blocks, each with a summary of what its hosts can do, so that a search can skip it.

One flat list would move up to 800 KB of pointers for every insert at 100,000 hosts; blocks of at most 1,024 move 8 KB.
`sortedcontainers` does the same, but has no place for the summary, without which a rare requirement (one region, a low
price cap) would have to examine every host.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from comptoir.kit.money import TOKENS_PER_MTOK
from comptoir.routing.needs import Needs
from comptoir.routing.types import PROVEN_REPUTATION, Candidate, Spec

BLOCK_MAX = 1024
"""Entries of a block before it is split in two."""

Entry = tuple[float, float, int, Candidate]
"""Measure, minus balanced score, order (unique, so that candidates are never compared), candidate."""


class Block:
    """Neighbouring entries, and bounds on what any of them can do. Bounds only widen until the block is rebuilt."""

    __slots__ = (
        "able", "context", "entries", "gpus", "lacking", "rate_in", "rate_out", "regions", "reputation", "tiers", "vram",
    )  # fmt: skip

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.summarise()

    def summarise(self) -> None:
        """Recompute the bounds from the entries."""
        self.rate_in = self.rate_out = 1 << 62
        self.context = self.vram = 0
        self.reputation = 0.0
        self.regions: set[str] = set()
        self.tiers: set[str] = set()
        self.gpus: set[str] = set()
        self.able: frozenset[str] = frozenset()
        self.lacking = self.entries[0][3].lacking if self.entries else frozenset()
        """What every one of them lacks."""
        for entry in self.entries:
            self.widen(entry[3])

    def widen(self, candidate: Candidate) -> None:
        """Widen the bounds to include *candidate*."""
        if candidate.rate_in < self.rate_in:
            self.rate_in = candidate.rate_in
        if candidate.rate_out < self.rate_out:
            self.rate_out = candidate.rate_out
        if candidate.context_tokens > self.context:
            self.context = candidate.context_tokens
        if candidate.vram_mib > self.vram:
            self.vram = candidate.vram_mib
        if candidate.reputation > self.reputation:
            self.reputation = candidate.reputation
        self.regions.add(candidate.region)
        self.tiers.add(candidate.tier)
        self.gpus.add(candidate.gpu)
        if candidate.able:
            self.able |= candidate.able
        if self.lacking:
            self.lacking &= candidate.lacking

    def may_pass(self, spec: Spec) -> bool:
        """Tell whether an entry could pass the filters; ``False`` is certain."""
        cap = spec.price_cap_uusd
        return not (
            spec.context_tokens > self.context
            or (spec.proven and self.reputation < PROVEN_REPUTATION)
            or (spec.needs is not None and not self._may_meet(spec.needs))
            or (spec.capabilities and not spec.capabilities.isdisjoint(self.lacking))
            or (
                cap is not None
                and spec.input_units * self.rate_in + spec.output_units * self.rate_out > cap * TOKENS_PER_MTOK
            )
        )

    def _may_meet(self, needs: Needs) -> bool:
        return not (
            needs.vram_mib > self.vram
            or needs.min_reputation > self.reputation
            or (needs.region and needs.region not in self.regions)
            or (needs.tier and needs.tier not in self.tiers)
            or (needs.gpu and not any(needs.gpu.casefold() in gpu.casefold() for gpu in self.gpus))
        )


class SortedBlocks:
    """Entries in ascending order; insert and delete cost two bisections and a move within one block."""

    __slots__ = ("_lasts", "blocks", "size")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        ordered = sorted(entries)
        half = BLOCK_MAX // 2
        self.blocks = [Block(ordered[at : at + half]) for at in range(0, len(ordered), half)]
        self._lasts = [block.entries[-1] for block in self.blocks]
        self.size = len(ordered)

    def __iter__(self) -> Iterator[Entry]:
        for block in self.blocks:
            yield from block.entries

    def insert(self, entry: Entry) -> None:
        """Insert *entry* in order."""
        self.size += 1
        if not self.blocks:
            self.blocks.append(Block([entry]))
            self._lasts.append(entry)
            return
        at = min(bisect_left(self._lasts, entry), len(self.blocks) - 1)
        block = self.blocks[at]
        insort(block.entries, entry)
        if len(block.entries) > BLOCK_MAX:
            upper = Block(block.entries[BLOCK_MAX // 2 :])
            del block.entries[BLOCK_MAX // 2 :]
            block.summarise()
            self.blocks.insert(at + 1, upper)
            self._lasts.insert(at + 1, upper.entries[-1])
        else:
            block.widen(entry[3])
        self._lasts[at] = block.entries[-1]

    def delete(self, entry: Entry) -> None:
        """Remove *entry*, which must be present."""
        self.size -= 1
        at = bisect_left(self._lasts, entry)
        entries = self.blocks[at].entries
        place = bisect_left(entries, entry)
        assert entries[place] == entry, "an entry must be deleted under the key it was inserted with"
        del entries[place]
        if entries:
            self._lasts[at] = entries[-1]
        else:
            del self.blocks[at], self._lasts[at]

    def widen(self, entry: Entry) -> None:
        """Widen the bounds of the block around *entry* to include its candidate's current values."""
        self.blocks[bisect_left(self._lasts, entry)].widen(entry[3])
