"""How much output is in frames, and what it can stand for: one rule for worker, coordinator and verifier."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comptoir.jobs import LiveJob
from comptoir.kinds import Chat, ContainerChain, Embedding, Kind, Terms, bounding_bytes, joined
from comptoir.kit.ids import new_id
from comptoir.link import Frame
from comptoir.worker.leases import WorkerLease, as_believed
from tests.kinds.toys import Dearest, Measured
from tests.worker.coordinator_stand_in import make_job

CALL = b'{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"look","arguments":"{}"}}]}}'

SIZES: list[tuple[type[Kind], list[Frame], int]] = [
    (Chat, [], 0),
    (Chat, [Frame("", 900)], 0),
    (Chat, [Frame("word")], 4),
    (Chat, [Frame(" word"), Frame(" word")], 10),
    (Chat, [Frame("né ✓")], 7),
    # Padding counts as much as what stands between it, and alone nothing.
    (Chat, [Frame(" " * 900)], 0),
    (Chat, [Frame(" ")] * 900, 0),
    (Chat, [Frame("a"), Frame("\n" * 900)], 2),
    (Chat, [Frame("1"), Frame("\n"), Frame("2"), Frame("\n")], 4),
    (Chat, [Frame("\u200b\ufeff\u2060\xa0\xad\u3164" * 50)], 0),
    (Chat, [Frame("\x00\x07\x7f\x9f" * 50)], 0),
    # Beside the text: what the delta says, but nothing that could be anything.
    (Chat, [Frame("", 9, b'{"delta":{"reasoning_content":"Hm, yes"}}')], 7),
    (Chat, [Frame("", 9, CALL)], 1 + 2 + 4 + 2),
    (Chat, [Frame("", 9, b'{"delta":{"role":"assistant","content":"  "}}')], 0),
    (Chat, [Frame("", 9, b'{"padding":"' + b"x" * 900 + b'","logprobs":{"content":[]}}')], 0),
    (Chat, [Frame("", 9, b'{"delta":{}' + b" " * 900 + b"}")], 0),
    (Chat, [Frame("", 9, b'{"\\u0064elta":{"refusal":"No"}}')], 2),
    (Chat, [Frame("", 9, b"stored before it was checked, with delta")], 0),
    (Embedding, [Frame("text", 9)], 0),
    (Embedding, [Frame("", 0, b'{"data":[   ]}')], 0),
    (Embedding, [Frame("", 0, b'{"data":[{"embedding":[0.5]}]}')], 30),
    (ContainerChain, [Frame("", 1, b'{"finish_reason":"stop"}')], 0),
    (ContainerChain, [Frame("", 1, b'{"base64":"AAAA"}')], 4),
    (Measured, [Frame("", 1, b'{"image":["AAAA",12,true,null],"index":7,"finish_reason":"stop"}')], 4 + 2 + 4),
]


def output_bytes(kind: Kind, frames: Sequence[Frame]) -> int:
    return bounding_bytes(kind.output_in(*joined(frames)))


class TestSize:
    @pytest.mark.parametrize(("kind", "frames", "size"), SIZES)
    def test_what_shows_counts(self, kind: type[Kind], frames: list[Frame], size: int) -> None:
        assert output_bytes(kind(), frames) == size

    @given(st.lists(st.text(max_size=8), max_size=8))
    def test_it_does_not_matter_how_it_is_cut(self, texts: list[str]) -> None:
        sizes = [Chat().output_in(text, ()) for text in texts]

        assert Chat().output_in("".join(texts), ()) == (sum(one for one, _ in sizes), sum(one for _, one in sizes))


class TestBillable:
    @pytest.mark.parametrize(
        ("kind", "claimed", "size", "believed", "billable"),
        [
            (Chat, 5, 20, 5, 5),
            (Chat, 52, 20, 52, 52),
            (Chat, 53, 20, 52, 52),
            (Chat, 2**31 - 1, 1, 33, 33),
            (Chat, 32, 0, 32, 0),
            (Chat, 2**31 - 1, 0, 32, 0),
            (Embedding, 7, 20, 7, 0),
            (ContainerChain, 1, 2, 1, 1),
            (ContainerChain, 1, 0, 1, 0),
            (Measured, 900, 1, 33, 33),
            (Dearest, 900, 1, 900, 900),
        ],
    )
    def test_is_bounded_by_what_came(
        self, kind: type[Kind], claimed: int, size: int, believed: int, billable: int
    ) -> None:
        assert (kind().believed(claimed, size), kind().billable(claimed, size)) == (believed, billable)

    @pytest.mark.parametrize(("kind", "countable"), [(Chat, 40 * 3 + 1_024), (Measured, 40)])
    def test_the_input_is_bounded_by_the_request(self, kind: type[Kind], countable: int) -> None:
        assert kind().input_countable(40) == countable


FRAMES = st.lists(
    st.builds(
        Frame,
        st.one_of(st.sampled_from(["", " ", "word", "\n\n", "é"]), st.text(max_size=6)),
        st.one_of(st.integers(0, 3), st.integers(0, 2_000)),
        st.sampled_from([b"", CALL, b'{"finish_reason":"stop"}', b'{"delta":{"reasoning_content":"so"}}']),
    ),
    max_size=12,
)


def live_job() -> LiveJob:
    return LiveJob(
        id=new_id(), owner_id=b"o" * 16, dialect="test", kind=Chat(), model="m", body=b"{}", terms=Terms(10, 100, 1, 1, 9),
        detached=True, deadline_ms=1, created_ms=0, submitted_s=0.0,
    )  # fmt: skip


class TestOneRule:
    @given(FRAMES)
    def test_worker_and_coordinator_count_alike_whatever_an_engine_says(self, frames: list[Frame]) -> None:
        kind, held, job = Chat(), WorkerLease(make_job(1), window=100), live_job()
        for frame in frames:
            held.add(frame)
            job.append([held.frames[-1]])

        claimed, size = sum(frame.tokens for frame in frames), output_bytes(kind, frames)
        assert [(one.text, one.extra) for one in held.frames] == [(one.text, one.extra) for one in frames]
        assert held.tokens == sum(one.tokens for one in held.frames) == kind.believed(claimed, size)
        assert job.count == kind.billable(held.tokens, size) == kind.billable(claimed, size)
        assert not job.claims_beyond(held.tokens)
        assert as_believed(frames, kind) == tuple(held.frames)

    @given(FRAMES, st.integers(0, 12))
    def test_a_host_that_claims_more_is_cut_however_it_sends_it(self, frames: list[Frame], at: int) -> None:
        """What an engine of ours would have said may be told earlier or later, and comes to the same sum."""
        kind, job = Chat(), live_job()

        for part in (frames[:at], frames[at:]):
            assert job.append(part)

        claimed, size = sum(frame.tokens for frame in frames), output_bytes(kind, frames)
        assert (job.segment_claim, job.count) == (claimed, kind.billable(claimed, size))
        assert job.claims_beyond(claimed) == (claimed > size + 32)
