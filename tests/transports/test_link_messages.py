"""What a worker may say over the link: every text and list within its bound, and nothing that grows when it is read."""

from typing import Any

import msgspec
import pytest

from comptoir.link import (
    ContainerCard,
    Done,
    Fail,
    Frame,
    Frames,
    FromWorker,
    Hello,
    ModelOffer,
    OpenAttempt,
    Resources,
    Usage,
    decode_from_worker,
    encode,
)
from comptoir.link.messages import FRAMES_MAX, OFFERS_MAX, OPEN_LEASES_MAX, WALKED_BYTES

LEASE = b"l" * 16
LONG = "x" * 100_000
OFFER = ModelOffer("m", ["chat"])


def hello(**changed: Any) -> Hello:
    return Hello(**{"version": 1, "software": "comptoir 1", "slots": 1, "models": [OFFER], "open": [], **changed})


class TestTooMuch:
    @pytest.mark.parametrize(
        "message",
        [
            hello(software=LONG),
            hello(models=[OFFER] * (OFFERS_MAX + 1)),
            hello(models=[ModelOffer(LONG, ["chat"])]),
            hello(models=[ModelOffer("m", ["chat"] * 1000)]),
            hello(models=[ModelOffer("m", ["chat"], fingerprint=LONG)]),
            hello(models=[ModelOffer("m", ["chat"], prices={str(number): 1 for number in range(1000)})]),
            hello(models=[ModelOffer("m", ["container"], container=ContainerCard(LONG))]),
            hello(models=[ModelOffer("m", ["container"], container=ContainerCard(allowed_ips=["1.2.3.4"] * 10_000))]),
            hello(open=[OpenAttempt(LEASE, 1)] * (OPEN_LEASES_MAX + 1)),
            Frames(LEASE * 100, 0, [Frame("a")]),
            Frames(LEASE, 0, [Frame()] * (FRAMES_MAX + 1)),
            Done(LEASE, 1, LONG, Usage(), b"", b""),
            Done(LEASE, 1, "stop", Usage(), LEASE * 100, b""),
            Done(LEASE, 1, "stop", Usage(), b"", LEASE * 100),
            Fail(LEASE, LONG, "", "host"),
            Fail(LEASE, "code", LONG, "host"),
            Fail(LEASE, "code", "", LONG),
            Fail(LEASE, "code", "", "host", body=b"x" * (2 << 20)),
            Resources({str(number): b"{}" for number in range(OFFERS_MAX + 1)}),
            Resources({"c": b"x" * (5 << 20)}),
        ],
        ids=lambda message: type(message).__name__.lower(),
    )
    def test_is_no_message(self, message: FromWorker) -> None:
        with pytest.raises(msgspec.DecodeError, match="length"):
            decode_from_worker(encode([message]))

    def test_a_megabyte_of_nothing_is_refused_before_it_is_read(self) -> None:
        """80 MB of empty frames, in many messages that are each within their bound, were 6 GB of objects."""
        item = encode([Frames(b"", 0, [])])[1:-1] + b"\xdc\xff\xff" + b"\x90" * 0xFFFF
        many = WALKED_BYTES // len(item) + 2

        with pytest.raises(msgspec.DecodeError, match="values in one message"):
            decode_from_worker(b"\xdc" + many.to_bytes(2) + item * many)


class TestEnough:
    @pytest.mark.parametrize(
        "messages",
        [
            [hello(models=[ModelOffer(f"model {number}", ["chat"]) for number in range(256)])],
            [hello(open=[OpenAttempt(LEASE, 1)] * 8192)],
            [Frames(LEASE, 0, [Frame("x" * 30_000_000)]), Frames(LEASE, 0, [Frame("ab")] * 4096)],
            [Frames(LEASE, 0, [Frame("ab")] * 30_000)] * 2,
            [Fail(LEASE, "upstream", "x" * 2000, "host", 500, b"x" * 16_384)],
        ],
        ids=["all models", "many leases", "a large frame", "after a reconnect", "a long error"],
    )
    def test_what_a_worker_may_have_to_say_is_heard(self, messages: list[FromWorker]) -> None:
        assert decode_from_worker(encode(messages)) == messages
