"""Buying: admission as in Ritual's node, and once under one Idempotency-Key."""

from comptoir.containers import admit
from comptoir.dialects.infernet.callers import Caller
from comptoir.dialects.infernet.translate import Asked, order_of
from comptoir.dispatch import Core
from comptoir.gateway import submit_once
from comptoir.idempotency import Claim
from comptoir.jobs import LiveJob


async def buy(core: Core, asked: Asked, caller: Caller, *, stream: bool, bound: Claim | None) -> LiveJob:
    """Return the job that *asked* buys; a repeat gets the first one's, whether or not it would still be admitted.

    Raises:
        What `admit` and `submit` raise.
    """
    names = asked.containers or ()

    def check() -> None:
        admit(core, names, proof=bool(asked.requires_proof), caller=caller.address)

    if not names:
        check()
    return await submit_once(core, order_of(asked, caller, stream=stream), bound, check=check)
