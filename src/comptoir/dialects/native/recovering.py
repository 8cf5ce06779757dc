"""What an operator sees and does when commits that were confirmed are missing from the database."""

from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.dispatch import Core
from comptoir.dispatch.errors import RestartFirst
from comptoir.dispatch.lost_commits import LostCommits, Missing
from comptoir.kit.db import CommitsLost
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Endpoint, Request

NAMED_MAX = 1_000
"""Ids in one answer; the answer says how many more there are."""

NOTHING = Missing([], [], [], 0)


class RecoverBody(msgspec.Struct, forbid_unknown_fields=True):
    """What an operator decides about commits that are missing."""

    accept_loss: Annotated[bool, Meta(description="What is missing stays missing, and work is taken again.")] = False
    reason: Annotated[str, Meta(max_length=200, description="Kept with the new epoch of the commit record.")] = ""


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


async def state(core: Core, request: Request) -> RecoverView:
    """Report whether commits are missing, and which."""
    lost = core.state(LostCommits)
    return _view(core, await lost.missing() if lost.is_lost else NOTHING)


async def recover(core: Core, request: Request) -> RecoverView:
    """Accept that what is missing stays missing, if something is; else change nothing."""
    body: RecoverBody = request.body
    if not body.accept_loss:
        raise InvalidField("accept_loss", "must be true: what is missing stays missing")
    lost = core.state(LostCommits)
    missing = await lost.missing() if lost.is_lost else NOTHING
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
    )


RECOVERING = (
    Endpoint(
        "GET", "/recover", state, Access.OPERATOR, "Report whether commits are missing from the database, and which.",
        response=RecoverView, reads=True,
    ),
    Endpoint(
        "POST", "/recover", recover, Access.OPERATOR, "Accept the loss of what is missing, and take work again.",
        request=RecoverBody, response=RecoverView, errors=(InvalidField, RestartFirst, CommitsLost),
        example={"accept_loss": True, "reason": "the standby was promoted two seconds behind; nothing to bring back"},
        description="Begins a new epoch of the commit record. If nothing is missing it changes nothing, so it may be "
        "repeated. The answer says what was missing.",
    ),
)  # fmt: skip
"""Endpoints of operators whose database lost commits."""
