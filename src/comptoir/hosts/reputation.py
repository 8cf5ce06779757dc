"""Reputation from outcomes only: the share of good outcomes expected of a host (mean of a Beta distribution).

It starts at 1/4, so trust is earned. A failure weighs as much as two answers, falling silent as four, because the buyer
waits for it. All evidence halves in weight in two weeks, so old faults fade and good standing has to be renewed.
"""

from dataclasses import dataclass

from comptoir.hosts.types import DONE, FAILED, LOST, ReputationStory

PRIOR_GOOD, PRIOR_BAD = 1.0, 3.0
WEIGHTS = {DONE: (1.0, 0.0), FAILED: (0.0, 2.0), LOST: (0.0, 4.0)}
HALF_LIFE_MS = 14 * 24 * 3600 * 1000


@dataclass(slots=True)
class Reputation:
    """Evidence for one host, as of *at_ms*."""

    good: float = 0.0
    bad: float = 0.0
    at_ms: int = 0

    def decay(self, now_ms: int) -> None:
        """Decay the evidence up to now; a clock that stepped back changes nothing."""
        if now_ms > self.at_ms:
            fade = 2.0 ** ((self.at_ms - now_ms) / HALF_LIFE_MS)
            self.good *= fade
            self.bad *= fade
            self.at_ms = now_ms

    def note(self, outcome: str, now_ms: int) -> None:
        """Add one outcome (`OUTCOMES`)."""
        good, bad = WEIGHTS[outcome]
        self.decay(now_ms)
        self.good += good
        self.bad += bad

    def score(self, now_ms: int) -> float:
        """Return the reputation, 0..1."""
        self.decay(now_ms)
        return (PRIOR_GOOD + self.good) / (PRIOR_GOOD + PRIOR_BAD + self.good + self.bad)

    def story(self, done: int, failed: int, lost: int, *, now_ms: int) -> ReputationStory:
        """Explain a host's reputation by the jobs that ended there."""
        score, good, bad = self.score(now_ms), self.good, self.bad
        sentence = (
            f"{score:.2f}: {done + failed + lost} jobs ended here, {done} answered, {failed} failed by the host's "
            f"fault, {lost} lost in silence. Weighted by age they count as {good:.1f} good and {bad:.1f} bad, "
            f"in addition to the {PRIOR_GOOD:.0f} good and {PRIOR_BAD:.0f} bad that every host starts with."
        )
        return ReputationStory(score, good, bad, done, failed, lost, sentence)
