"""What an operator sees and does when commits that were confirmed are missing from the database."""

from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.dispatch import Core
from comptoir.dispatch.errors import RestartFirst
from comptoir.dispatch.hand_in import HandedIn
from comptoir.dispatch.lost_commits import LostCommits, Missing
from comptoir.dispatch.repair import Repair
from comptoir.kit.db import CommitsLost
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Request
from comptoir.kit.ids import public

NAMED_MAX = 1_000
"""Ids in one answer; the answer says how many more there are."""

NOTHING = Missing([], [], [], 0)


class RecoverBody(msgspec.Struct, forbid_unknown_fields=True):
    """What an operator decides about commits that are missing."""

    accept_loss: Annotated[bool, Meta(description="What is missing stays missing, and work is taken again.")] = False
    bring_back: Annotated[bool, Meta(description="Post again what can be proved; GET shows how far that is.")] = False
    reason: Annotated[str, Meta(max_length=200, description="Kept with the new epoch of the commit record.")] = ""


class LeftReceipt(msgspec.Struct):
    """A receipt that a worker handed in and that could not be posted again."""

    receipt: str
    outcome: str
    """``uncovered``, ``no_account``, ``contradicted`` or ``under_way``."""
    why: str
    missing_uusd: int
    """Credit that its buyer lacks."""


class RepairView(msgspec.Struct):
    """How far bringing back is, since this coordinator started."""

    running: bool
    asking: int
    """Workers that are being asked for receipts."""
    waiting: int
    """Receipts that were handed in and wait to be posted."""
    refused: int
    """Receipts that were handed in and not taken, since this coordinator did not sign them."""
    transfers: int
    """Posted again from this coordinator's own record."""
    receipts: int
    """Posted again from workers' hands."""
    known: int
    """Handed in, and stored already."""
    left: list[LeftReceipt]
    """Those that could not be posted, at most 100."""
    more_left: int
    """How many besides those."""
    failed: str
    """Why it ended early; empty: it did not."""


class RecoverView(msgspec.Struct):
    """Whether commits that were confirmed are missing from the database."""

    lost: bool
    """While true, no work is accepted and nothing is settled."""
    since_ms: int | None
    """When it was seen; null: nothing is missing."""
    missing: int
    """How many receipts, transfers and accepted jobs are missing; 0 too where only other coordinators miss some."""
    names: list[str]
    """Their ids, transfers first: ``rcpt_…``, ``job_…``, or a transfer's kind and id; at most 1,000."""
    more: int
    """How many are missing besides those named."""
    elsewhere: int
    """Other coordinators on this database that miss commits."""
    restart_first: bool
    """It was seen while the coordinator ran, which has to be restarted before the loss can be accepted."""
    epoch: int
    """Epoch of the commit record: one more for each loss that was accepted."""
    entries: int
    """What was confirmed in this epoch."""
    began_ms: int
    """When the epoch began."""
    reason: str
    """Why it began; empty for the first."""
    repair: RepairView
    """How far bringing back is, or how it ended."""


async def state(core: Core, request: Request) -> RecoverView:
    """Report whether commits are missing, and which."""
    lost = core.state(LostCommits)
    return _view(core, await lost.missing() if lost.is_lost else NOTHING)


async def recover(core: Core, request: Request) -> RecoverView:
    """Bring back what can be proved, or accept what is missing as lost; where nothing is, nothing changes."""
    body: RecoverBody = request.body
    if body.accept_loss is body.bring_back:
        raise InvalidField("accept_loss", "must be true, or bring_back, and not both")
    lost = core.state(LostCommits)
    missing = await lost.missing() if lost.is_lost else NOTHING
    if body.bring_back:
        core.state(Repair).begin()
    else:
        await lost.accept(body.reason)
    return _view(core, missing)


def _view(core: Core, missing: Missing) -> RecoverView:
    lost, record = core.state(LostCommits), core.db.record
    assert record is not None
    names = missing.names(NAMED_MAX)
    return RecoverView(
        lost.is_lost,
        record.since_ms or None,
        missing.total,
        names,
        missing.total - len(names),
        record.lost_elsewhere,
        lost.restart_first,
        record.head.epoch,
        record.head.entries,
        record.files.began_ms,
        record.files.reason,
        _repair(core),
    )


def _repair(core: Core) -> RepairView:
    state, handed = core.state(Repair).state, core.state(HandedIn)
    left = [LeftReceipt(public("rcpt", one.job_id), one.outcome, one.why, one.missing_uusd) for one in state.left]
    return RepairView(
        state.running, handed.asked, len(handed), handed.rejected, state.transfers, state.receipts, state.known, left,
        state.left_count - len(left), state.failed,
    )  # fmt: skip


RECOVERING = (
    Endpoint(
        "GET", "/recover", state, Access.OPERATOR, "Report whether commits are missing from the database, and which.",
        response=RecoverView, reads=True,
    ),
    Endpoint(
        "POST", "/recover", recover, Access.OPERATOR, "Bring back what is missing, or accept the loss and take work again.",
        request=RecoverBody, response=RecoverView, errors=(InvalidField, RestartFirst, CommitsLost),
        example={"accept_loss": True, "reason": "the standby was promoted two seconds behind; nothing to bring back"},
        description="Accepting begins a new epoch of the commit record. Bringing back goes on after the answer, which GET "
        "shows: what this coordinator's own record and workers' receipts prove is posted again, and if nothing is missing "
        "then, a new epoch begins. Nothing is posted twice, and if nothing is missing nothing changes, so either may be "
        "repeated. The answer says what was missing.",
    ),
)  # fmt: skip
"""Endpoints of operators whose database lost commits."""
