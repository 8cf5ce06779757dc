"""The buyer's stop strings end an answer before they are shown, also where the server leaves them in."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comptoir.link import Frame
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.engines.openai_stops import StopGuard, before_stops, guard_of
from tests.worker.openai_play import play, request
from tests.worker.openai_stand_in import OpenAIStandIn, delta, sse, stream_of, usage

texts = st.text("ab\n", max_size=12)


def through(guard: StopGuard, *pieces: Frame | str) -> list[Frame]:
    frames = [Frame(piece) if isinstance(piece, str) else piece for piece in pieces]
    return list(before_stops(frames, guard, ends=True))


class TestStopGuard:
    @example(text="\naa", cuts=[2], stops=["a", "\naa"])
    @given(
        text=texts,
        cuts=st.lists(st.integers(0, 12)),
        stops=st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1),
    )
    def test_the_text_ends_before_the_first_however_it_comes_in_pieces(
        self, text: str, cuts: list[int], stops: list[str]
    ) -> None:
        ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        guard = StopGuard(stops)

        said = "".join(frame.text for frame in through(guard, *(text[a:b] for a, b in pairwise(ends))))

        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        assert said == (text[: min(places)[1]] if places else text)
        assert guard.stopped is bool(places)

    def test_what_can_be_no_stop_string_is_not_held_back(self) -> None:
        guard = StopGuard(["END"])

        assert guard.feed(Frame("It ")) == [Frame("It ")]
        assert guard.feed(Frame("is E")) == []
        assert guard.feed(Frame("N")) == []
        assert guard.feed(Frame("ough")) == [Frame("is E"), Frame("N"), Frame("ough")]

    def test_a_frame_that_is_cut_keeps_its_tokens_and_what_stands_beside_it(self) -> None:
        frames = through(StopGuard(["END"]), Frame("so END", 3, b'{"logprobs":{}}'), Frame("more", 2))

        assert frames == [Frame("so ", 3, b'{"logprobs":{}}')]

    def test_each_choice_stops_for_itself(self) -> None:
        other = b'{"index":1}'
        guard = StopGuard(["."])

        frames = through(guard, "a", Frame("b", 1, other), Frame(".x", 1, other), "c", Frame("y", 1, other))

        assert [(frame.text, frame.extra) for frame in frames] == [("a", b""), ("b", other), ("c", b"")]
        assert not guard.stopped

    def test_what_is_no_text_passes_after_the_end(self) -> None:
        end = Frame("", 0, b'{"chunk":{"x":1}}')

        assert through(StopGuard(["."]), "a.", "b", end) == [Frame("a"), end]


class TestGuardOf:
    @pytest.mark.parametrize(
        ("body", "guarded"),
        [
            (b'{"stop":"x"}', True),
            (b'{"stop":["","x"]}', True),
            (b'{"stop":null}', False),
            (b'{"stop":[]}', False),
            (b'{"stop":""}', False),
            (b'{"messages":[{"content":"stop"}]}', False),
            (b'{"stop":"x","include_stop_str_in_output":true}', False),
            (b'{"stop":"x","no_stop_trim":true}', False),
            (b'{"stop":"x","min_tokens":5}', False),
            (b'{"stop":"x","echo":true}', False),
            (b'{"stop":7}', False),
            (b'{"stop"', False),
        ],
    )
    def test_only_requests_that_want_them_left_out_have_one(self, body: bytes, guarded: bool) -> None:
        assert (guard_of(body) is not None) is guarded


class TestEngine:
    async def test_a_server_that_leaves_it_in_or_goes_on_makes_no_difference(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        said = [delta({"content": text}) for text in ("One", ", two", ", thr", "ee, four")]
        server.handler = stream_of(sse(*said, delta({}, finish_reason="length"), usage(7, 4)))

        frames, finish = await play(engine, request(stop=[", three"]))

        assert "".join(frame.text for frame in frames) == "One, two"
        assert finish.finish_reason == "stop"
        assert finish.usage.billed(sum(frame.tokens for frame in frames)) == 2
