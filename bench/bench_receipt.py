"""What a receipt costs settlement, beside the bare Ed25519 signature it cannot do without.

Run: ``PYTHONPATH=src python bench/bench_receipt.py``. Prints medians of batches, CPU microseconds a receipt.
"""

import statistics
import time
from collections.abc import Callable

from comptoir.link import pae
from comptoir.receipts import (
    PAYLOAD_TYPE,
    HolderKind,
    PublishedKey,
    Receipt,
    build_and_sign,
    envelope,
    registry_of,
    verify,
)
from comptoir.receipts.testing import make_facts, make_key, make_published_key, make_segment

ROUNDS, CALLS = 21, 300


def median_us(call: Callable[[], object]) -> float:
    """Return the median over rounds of the mean CPU time of one call, microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time() - start) / CALLS * 1e6)
    return statistics.median(rounds)


def main() -> None:
    """Measure and print."""
    key, host_key = make_key(1), make_key(2)
    first = make_segment(number=1, key=host_key)
    signed = make_facts(segments=[first])
    unsigned = make_facts(segments=[make_segment(number=1)])
    payload, signature = build_and_sign(signed, key)
    receipt = Receipt(signed.job_id, key.keyid, payload, signature)
    sealed = envelope(receipt)
    host = PublishedKey(host_key.keyid, host_key.public_key.hex(), HolderKind.HOST, f"host_{first.host_id.hex()}", 0)
    registry = registry_of([make_published_key(key), host])
    assert verify(sealed, registry).ok
    message = pae(PAYLOAD_TYPE, payload)

    bare = median_us(lambda: key.sign(message))
    rows = [
        ("bare signature of the same bytes", bare),
        ("receipt, host signed its segment", median_us(lambda: build_and_sign(signed, key))),
        ("receipt, host does not sign", median_us(lambda: build_and_sign(unsigned, key))),
        ("render the envelope", median_us(lambda: envelope(receipt))),
        ("verify offline, two signatures", median_us(lambda: verify(sealed, registry))),
    ]
    print(f"payload {len(payload):,} bytes, envelope {len(sealed):,} bytes")
    for name, us in rows:
        print(f"{name:<36} {us:7.1f} us  {us / bare:5.2f} x the bare signature")


if __name__ == "__main__":
    main()
