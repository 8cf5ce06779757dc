"""Contradict: keep as evidence what a host signed of its frames, where what arrived contradicts it."""

import logging
from itertools import product

import msgspec

from comptoir.dispatch.core import Core
from comptoir.dispatch.settle import segment_of
from comptoir.jobs import Lease, LiveJob
from comptoir.kinds import FINISH_REASON_CHARS_MAX
from comptoir.kit.signing import is_signed
from comptoir.link import Segment, Usage, segment_bytes
from comptoir.receipts import contradiction

log = logging.getLogger(__name__)

HASH_BYTES = 32


def keep_contradiction(
    core: Core,
    job: LiveJob,
    lease: Lease,
    *,
    finish_reason: str,
    usage: Usage,
    signature: bytes,
    running_hash: bytes,
) -> None:
    """Keep as evidence, in the background, what the host of *lease* signed, if only it can have caused the difference.

    The signature has to verify over a statement about exactly the frames that arrived, so nothing was lost on the way,
    which either has another running hash or counts more units than they state. A signature that verifies over neither
    shows nothing: anybody can send one. Nor does a lease that was resumed after this process started: what it had
    delivered before was lost here.
    """
    host = core.fleet.find(lease.host_id)
    public_key = host.row.public_key if host is not None else None
    if public_key is None or not signature or lease.revived or len(finish_reason) > FINISH_REASON_CHARS_MAX:
        return
    found = _contradicted(
        job, lease, finish_reason, usage, signature=signature, running_hash=running_hash, public_key=public_key
    )
    if found is not None:
        stated, arrived = found
        log.warning("%s, attempt %s: %s", stated.host, stated.attempt, contradiction(stated, arrived))
        kept = core.receipts.evidence.keep(stated=stated, signature=signature, public_key=public_key, arrived=arrived)
        core.background.spawn(kept)


def _contradicted(
    job: LiveJob, lease: Lease, finish_reason: str, usage: Usage, *, signature: bytes, running_hash: bytes,
    public_key: bytes,
) -> tuple[Segment, Segment] | None:  # fmt: skip
    """Return what the host signed and what arrived; None: its signature is over no statement that contradicts it."""
    expected = segment_of(job, lease, finish_reason, usage)
    units = sum([frame.tokens for frame in job.frames[lease.first_frame :]])
    arrived = msgspec.structs.replace(expected, completion_tokens=units)
    chains = {arrived.chain, running_hash.hex()} if len(running_hash) == HASH_BYTES else {arrived.chain}
    counts = {units, expected.completion_tokens, usage.completion_tokens}
    for chain, count in product(sorted(chains), sorted(counts)):
        stated = msgspec.structs.replace(arrived, chain=chain, completion_tokens=count)
        # Up to six signatures of 42 us, for a host that is about to fail its attempt.
        if contradiction(stated, arrived) and is_signed(segment_bytes(stated), signature, public_key):
            return stated, arrived
    return None
