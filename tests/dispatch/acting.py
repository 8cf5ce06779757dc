"""Operators' acts, for tests: nobody minds who decides and why."""

from functools import partial

from comptoir.dispatch import Core
from comptoir.dispatch.moderate import act_on_host, act_on_model, act_on_user
from comptoir.kit.db import Tx
from comptoir.kit.ids import new_id, public
from comptoir.moderation import Act, Author, Decision, Verb, lock, record

OPERATOR = Author(b"o" * 16, "root")
WHY = "it lies about its model"


async def suspend(core: Core, host_id: bytes) -> Act:
    """Suspend a host."""
    return await act_on_host(core, Verb.HOST_SUSPEND, host_id, author=OPERATOR, reason=WHY)


async def resume(core: Core, host_id: bytes) -> Act:
    """Resume a host."""
    return await act_on_host(core, Verb.HOST_RESUME, host_id, author=OPERATOR, reason=WHY)


async def retire(core: Core, host_id: bytes) -> Act:
    """Retire a host."""
    return await act_on_host(core, Verb.HOST_RETIRE, host_id, author=OPERATOR, reason=WHY)


async def on_user(core: Core, verb: Verb, user_id: bytes) -> Act:
    """Suspend or resume a user."""
    return await act_on_user(core, verb, user_id, author=OPERATOR, reason=WHY)


async def on_model(core: Core, verb: Verb, name: str) -> Act:
    """Quarantine or release a name."""
    return await act_on_model(core, verb, name, author=OPERATOR, reason=WHY)


async def record_elsewhere(core: Core, verb: Verb, subject: str) -> None:
    """Record an act as another coordinator does whose message is lost: only the table knows of it."""

    def command(one: Decision, tx: Tx) -> None:
        lock(tx)
        record(tx, one)

    await core.db.run(partial(command, Decision(new_id(), OPERATOR, verb, subject, WHY, 1)))


def host_name(host_id: bytes) -> str:
    """Return the public id of a host."""
    return public("host", host_id)
