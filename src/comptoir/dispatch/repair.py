"""Repair: bring back all that can be proved of what the database lost, on an operator's word, and end the loss if that
was everything.

First the transfers that this coordinator's own record holds, deposits among them, then the receipts that workers hand
in. In the background: a repair takes as long as it takes to ask every linked worker, and an operator looks at its state
meanwhile.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import msgspec

from comptoir.dispatch.bring_back import TOGETHER_MAX, BroughtBack, PostingOutcome, bring_back
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.errors import RestartFirst
from comptoir.dispatch.hand_in import HandedIn
from comptoir.dispatch.lost_commits import LostCommits, Missing
from comptoir.events import ReceiptsWanted
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)

TRANSFERS_TOGETHER = 1_000
"""Transfers posted by one command."""

LEFT_NAMED_MAX = 100
"""Receipts that were not posted and are named, with why."""

ROUNDS_MAX = 1_000
"""Times that workers are asked again, because there was no room for all that they had: 20,000 receipts each time."""


class RepairState(msgspec.Struct, frozen=True):
    """How far a repair is, or how the last one ended."""

    running: bool = False
    transfers: int = 0
    """Posted from this coordinator's own record."""
    receipts: int = 0
    """Posted from workers' hands."""
    known: int = 0
    """Handed in although they were stored already."""
    left: tuple[BroughtBack, ...] = ()
    """Those that could not be posted, at most `LEFT_NAMED_MAX`; they are handed in again at the next repair."""
    left_count: int = 0
    """How many that are."""
    failed: str = ""
    """Why it ended early; empty: it did not."""


class Repair(State):
    """The repair under way, or the last one."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.state = RepairState()

    def begin(self) -> None:
        """Begin a repair, unless one is under way. After a loss was accepted as well: for what was not covered before.

        Raises:
            RestartFirst: commits are missing, and it was found while this process ran.
        """
        if self.state.running:
            return
        if self._core.state(LostCommits).restart_first:
            raise RestartFirst
        self.state = RepairState(running=True)
        self._core.background.spawn(self._run())

    async def _run(self) -> None:
        failed = ""
        try:
            await self._post_all()
            await self._core.state(LostCommits).close_gap(self._reason())
        except Unavailable as outage:
            failed = outage.message
        except Exception as error:  # The task's edge: the operator has to see that it ended.
            log.exception("bringing back what was lost failed")
            failed = f"{type(error).__name__}: see the log"
        self.state = msgspec.structs.replace(self.state, running=False, failed=failed)
        log.warning("brought back %d receipts and %d transfers", self.state.receipts, self.state.transfers)

    async def _post_all(self) -> None:
        core = self._core
        missing: Missing = await core.state(LostCommits).missing()
        for first in range(0, len(missing.transfers), TRANSFERS_TOGETHER):
            part = missing.transfers[first : first + TRANSFERS_TOGETHER]
            posted = await core.ledger.post_again(part)
            self.state = msgspec.structs.replace(self.state, transfers=self.state.transfers + len(posted))
        handed, left = core.state(HandedIn), dict[bytes, BroughtBack]()
        for _ in range(ROUNDS_MAX):
            handed.begin_round()
            core.events.publish(ReceiptsWanted())
            await handed.quiet()
            receipts = [one for one in handed.oldest_first() if one.job_id not in left]
            for first in range(0, len(receipts), TOGETHER_MAX):
                found = await bring_back(core, receipts[first : first + TOGETHER_MAX])
                left |= {
                    one.job_id: one for one in found if one.outcome not in (PostingOutcome.POSTED, PostingOutcome.KNOWN)
                }
                handed.drop([one.job_id for one in found])
                self._count(found, left)
            if not handed.short or not receipts:
                return

    def _count(self, found: Sequence[BroughtBack], left: Mapping[bytes, BroughtBack]) -> None:
        counts = Counter(one.outcome for one in found)
        self.state = msgspec.structs.replace(
            self.state,
            receipts=self.state.receipts + counts[PostingOutcome.POSTED],
            known=self.state.known + counts[PostingOutcome.KNOWN],
            left=tuple(islice(left.values(), LEFT_NAMED_MAX)),
            left_count=len(left),
        )

    def _reason(self) -> str:
        return f"brought back {self.state.receipts} receipts and {self.state.transfers} transfers"
