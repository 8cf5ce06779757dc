"""Reputation from outcomes only: the share of good outcomes expected of a host (mean of a Beta distribution).

It starts at 1/4, so trust is earned: by work that somebody other than its owner paid for, in proportion to the price up
to `MERIT_UUSD` a job. A failure weighs as much as two such answers, falling silent as four, because the buyer waits for
it. All evidence halves in weight in two weeks, so old faults fade and good standing has to be renewed.

Whose evidence it is matters too: buyers are divided into `GROUPS` groups by their id, and what a group has to say of a
host weighs at most `GROUP_MAX`, the newer pushing out the older. So one buyer's jobs, however many, make no good name
and ruin none; all together weigh at most `GROUPS` times as much, so no name is so good that it survives a dozen or two
failures. Groups rather than buyers, because they need no memory that an attacker could fill or push others out of.
"""

from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from comptoir.hosts.types import DONE, DOUBTED, EMPTY, FAILED, LOST, ReputationStory
from comptoir.routing import PROVEN_REPUTATION

PRIOR_GOOD, PRIOR_BAD = 1.0, 3.0
START = PRIOR_GOOD / (PRIOR_GOOD + PRIOR_BAD)
"""Reputation of a host of which nothing is known."""
WEIGHTS = {FAILED: 2.0, LOST: 4.0, EMPTY: 2.0, DOUBTED: 0.5}
"""Weight of each bad outcome. A bad request may be one, so to say so, and be believed, weighs little; a host that gives
no other answer loses its name all the same."""
MERIT_UUSD = 100
"""Micro-dollars that a job has to pay its host to count as one good answer; a cheaper one counts in proportion, so that
splitting a job gains nothing."""
FORGIVEN = 0.25
"""Share of a group's bad evidence that each answer to it takes back, paid or not: up to where every host starts."""
GROUPS = 16
"""Groups of buyers."""
GROUP_MAX = 4.0
"""Most weight of one group of buyers, good and bad together."""
OWN, EARLIER = GROUPS, GROUPS + 1
"""Keys of what is not of a group: jobs of the host's own owner, which may cost but never earn a good name; and what was
stored before buyers were told apart, of which the good weighs no more than one group's."""
PROVEN = PROVEN_REPUTATION
"""Reputation from which a host counts as proven: paid work speaks for it, and outweighs what speaks against it."""
HALF_LIFE_MS = 14 * 24 * 3600 * 1000
FADE_STEP_MS = 10 * 60 * 1000
"""How often the fading is worked out at most; it is 0.03 % in that time."""
NOISE = 0.05
"""Weight below which a difference between stored sums is rounding: they are whole thousandths."""


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """`HostRow.evidence`."""

    at_ms: int
    groups: dict[int, tuple[int, int]]
    """Good and bad by group, in thousandths."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def group_of(buyer: bytes) -> int:
    """Return the group that a buyer belongs to, at every coordinator and for ever."""
    return crc32(buyer) % GROUPS


@dataclass(slots=True)
class Reputation:
    """Evidence for one host, as of *at_ms*."""

    good: float = 0.0
    bad: float = 0.0
    """Sums over all groups."""
    at_ms: int = 0
    groups: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Good and bad by group (`group_of`), by `OWN` and by `EARLIER`."""

    @classmethod
    def stored(cls, good_milli: int, bad_milli: int, at_ms: int, evidence: bytes | None) -> "Reputation":
        """Return what was stored. What the sums have beyond *evidence* was written by a version without groups."""
        self = cls(at_ms=at_ms)
        if evidence:
            stored = _decode(evidence)
            self.groups = {group: (good / 1000, bad / 1000) for group, (good, bad) in stored.groups.items()}
            self.at_ms = stored.at_ms
            self._sum()
            self.decay(at_ms)
        more_good, more_bad = good_milli / 1000 - self.good, bad_milli / 1000 - self.bad
        if more_good > NOISE or more_bad > NOISE:
            good, bad = self.groups.get(EARLIER, (0.0, 0.0))
            self.groups[EARLIER] = min(GROUP_MAX, good + max(0.0, more_good)), bad + max(0.0, more_bad)
            self._sum()
        return self

    @property
    def evidence(self) -> bytes | None:
        """The groups as stored; None: there is no evidence."""
        if not self.groups:
            return None
        groups = {group: (round(good * 1000), round(bad * 1000)) for group, (good, bad) in self.groups.items()}
        return _encode(_Stored(self.at_ms, groups))

    def decay(self, now_ms: int) -> None:
        """Decay the evidence up to now; a clock that stepped back changes nothing."""
        if now_ms - self.at_ms < FADE_STEP_MS:
            return
        fade = 2.0 ** ((self.at_ms - now_ms) / HALF_LIFE_MS)
        self.groups = {group: (good * fade, bad * fade) for group, (good, bad) in self.groups.items()}
        self.at_ms = now_ms
        self._sum()

    def note(self, outcome: str, now_ms: int, *, buyer: bytes, own: bool = False, paid_uusd: int = 0) -> None:
        """Add one outcome (`OUTCOMES`) of a job of *buyer*.

        Args:
            own: *buyer* is the host's own owner: an answer to him earns nothing, whatever he paid.
            paid_uusd: what the host earned by it, without promotional credit.
        """
        self.decay(now_ms)
        group = OWN if own else crc32(buyer) % GROUPS
        good_before, bad_before = good, bad = self.groups.get(group, (0.0, 0.0))
        if outcome in WEIGHTS:
            bad += WEIGHTS[outcome]
        else:
            if outcome == DONE:
                bad *= 1.0 - FORGIVEN
            if paid_uusd and not own:
                good += paid_uusd / MERIT_UUSD if paid_uusd < MERIT_UUSD else 1.0
        weight = good + bad
        if weight > GROUP_MAX:
            good *= GROUP_MAX / weight
            bad *= GROUP_MAX / weight
        self.groups[group] = good, bad
        self.good += good - good_before
        self.bad += bad - bad_before

    def take_over(self, other: "Reputation") -> None:
        """Start where *other* stands: a new name of the same owner. What his own jobs say stays with the old one."""
        self.groups, self.at_ms = dict(other.groups), other.at_ms
        self.groups.pop(OWN, None)
        self._sum()

    def score(self, now_ms: int) -> float:
        """Return the reputation, 0..1."""
        self.decay(now_ms)
        return (PRIOR_GOOD + self.good) / (PRIOR_GOOD + PRIOR_BAD + self.good + self.bad)

    def story(self, done: int, failed: int, lost: int, *, now_ms: int) -> ReputationStory:
        """Explain a host's reputation by the jobs that ended there."""
        score, good, bad = self.score(now_ms), self.good, self.bad
        heard = sum(group < GROUPS for group in self.groups)
        sentence = (
            f"{score:.2f}: {done + failed + lost} jobs ended here, {done} answered, {failed} failed by the host's "
            f"fault, {lost} lost in silence. Of that, what others paid for and what failed, from {heard} of {GROUPS} "
            f"groups of buyers with at most {GROUP_MAX:.0f} each, weighs {good:.1f} good and {bad:.1f} bad now, "
            f"in addition to the {PRIOR_GOOD:.0f} good and {PRIOR_BAD:.0f} bad that every host starts with."
        )
        return ReputationStory(score, good, bad, done, failed, lost, sentence)

    def _sum(self) -> None:
        self.good = sum([good for good, _ in self.groups.values()])
        self.bad = sum([bad for _, bad in self.groups.values()])
