"""Growth: how the bound of an answer whose buyer named none is raised while it runs (`comptoir.dispatch.extend`)."""

from collections.abc import Sequence

from comptoir.kinds import Terms

BY_CREDIT, BY_CONTEXT = "credit", "context"
"""Why a bound is not raised any more: the buyer's free credit does not cover more, or no more fits the host's context
or what this trading post allows."""


class Growth:
    """What a job with such a bound keeps beside its terms (`LiveJob.growth`; None: its buyer named a bound).

    It is not stored: another process begins anew.
    """

    __slots__ = ("dearest", "ended_by", "short_at")

    def __init__(self, dearest: tuple[int, int] | None = None) -> None:
        self.ended_by = ""
        """`BY_CREDIT` or `BY_CONTEXT`: the bound is final. Empty: it is not."""
        self.short_at = 0
        """The bound beyond which nothing was to be had when it was last tried; it is tried again once that is
        reached."""
        self.dearest = dearest
        """Prices (in, out) of the model's dearest host when the job was bought, with which `LiveJob.ceilings` grow;
        None: not known, or no host was dearer."""

    def is_due(self, terms: Terms, claim: int) -> bool:
        """Tell whether the bound of *terms* is to be raised, now that *claim* units have come."""
        if self.ended_by:
            return False
        return claim >= (terms.output_max if terms.output_max == self.short_at else terms.due)

    def fell_short(self, terms: Terms) -> None:
        """Note that neither credit nor context reaches beyond the bound of *terms* as yet."""
        self.short_at = terms.output_max

    def note_dearest(self, rates: Sequence[int]) -> None:
        """Note the prices of the model's dearest host, as another coordinator says; empty: it does not know."""
        self.dearest = (rates[0], rates[1]) if rates else None

    def end(self, why: str) -> None:
        """Note that the bound is not raised any more."""
        self.ended_by = why
