"""How answers of OpenAI-compatible engines become frames, event by event (`openai_answer.AnswerReader`)."""

from typing import Any

import msgspec
import pytest

from comptoir.kinds import ToolCallFragments
from comptoir.link import Frame, Usage
from comptoir.worker.engines import sse
from comptoir.worker.engines.openai_answer import AnswerReader, read_embeddings, read_usage
from comptoir.worker.engines.openai_wire import error_message
from tests.worker.openai_stand_in import delta


def read(reader: AnswerReader, *chunks: dict[str, Any]) -> list[tuple[str, int, Any]]:
    """Return text, tokens and extra of the frames of *chunks*."""
    frames = [frame for chunk in chunks for frame in reader.read(b"", msgspec.json.encode(chunk))]
    return [spelled(frame) for frame in frames]


def spelled(frame: Frame) -> tuple[str, int, Any]:
    return frame.text, frame.tokens, msgspec.json.decode(frame.extra) if frame.extra else None


class TestBeside:
    def test_what_is_beside_each_piece_is_told_once(self) -> None:
        """Every frame with an extra costs the coordinator ten times as much as one without."""
        chunks = [delta({"content": text, "reasoning": None}) | {"system_fingerprint": "fp"} for text in "abc"]

        assert read(AnswerReader(), *chunks) == [
            ("a", 1, {"chunk": {"system_fingerprint": "fp"}, "blank": {"reasoning": None}}),
            ("b", 1, None),
            ("c", 1, None),
        ]

    def test_what_is_no_longer_there_is_told_too(self) -> None:
        reader = AnswerReader()

        assert read(reader, delta({"role": "assistant"}) | {"x_groq": {"id": 1}}, delta({"content": "a"})) == [
            ("a", 1, {"chunk": {"x_groq": {"id": 1}}})
        ]
        assert read(reader, delta({"content": "b"}), delta({"content": "c"})) == [
            ("b", 1, {"chunk": {}}),
            ("c", 1, None),
        ]

    def test_the_end_of_the_fields_comes_after_the_text_and_counts_nothing(self) -> None:
        reader = AnswerReader()
        read(reader, delta({"content": "a"}), delta({}, finish_reason="stop", stop_reason=7) | {"timings": {"n": 1}})
        read(reader, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

        frames, finish = reader.last()

        assert [spelled(frame) for frame in frames] == [
            ("", 0, {"choice": {"stop_reason": 7}}),
            ("", 0, {"chunk": {"timings": {"n": 1}}}),
            ("", 1, None),
        ]
        assert (finish.finish_reason, finish.usage.prompt_tokens, finish.usage.completion_tokens) == ("stop", 3, 2)

    def test_an_answer_without_anything_stays_empty(self) -> None:
        reader = AnswerReader()
        read(
            reader,
            delta({"role": "assistant", "content": ""}) | {"system_fingerprint": "fp"},
            delta({}, finish_reason="stop"),
        )

        assert reader.last()[0] == []

    def test_fields_of_the_host_before_end_with_its_frames(self) -> None:
        before = [Frame("a", 1, b'{"chunk":{"system_fingerprint":"its"},"blank":{"reasoning":null}}'), Frame("b")]

        assert read(AnswerReader(before), delta({"content": "c"}), delta({"content": "d"})) == [
            ("c", 1, {"chunk": {}, "blank": {}}),
            ("d", 1, None),
        ]

    def test_fields_that_nobody_could_read_are_left_out(self) -> None:
        chunk = delta({"content": "a"}) | {"hidden_states": "x" * 2_000_000}

        assert read(AnswerReader(), chunk) == [("a", 1, None)]

    def test_an_empty_thought_is_no_token(self) -> None:
        reader = AnswerReader()

        assert read(reader, delta({"role": "assistant", "content": "", "reasoning_content": "", "refusal": ""})) == []
        assert reader.last()[1].usage == Usage()


class TestCounts:
    def test_a_count_that_is_none_leaves_the_other(self) -> None:
        usage = read_usage(b'{"prompt_tokens":5,"completion_tokens":-1,"of":NaN}', delivered=2)

        assert (usage.prompt_tokens, usage.completion_tokens) == (5, 2)
        assert usage.billed(2) == 2
        assert msgspec.json.decode(usage.details)["of"] is None

    def test_vectors_with_a_count_that_is_none_are_vectors(self) -> None:
        frame, finish = read_embeddings(b'{"data":[{"embedding":[0.5],"index":0}],"usage":{"prompt_tokens":NaN}}')

        assert (frame.extra, finish.usage) == (b'{"data":[{"embedding":[0.5],"index":0}]}', Usage())


class TestErrors:
    def test_its_words_are_bounded(self) -> None:
        assert error_message(b'{"error":{"message":"%b"}}' % (b"x" * 9_000)) == "x" * 2_000

    def test_a_field_named_error_is_bounded_as_data_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sse, "LINE_BYTES_MAX", 1_000)

        with pytest.raises(sse.SseTooLong):
            sse.SseParser().feed(b"error: out of memory\n" * 100)


class TestToolCallFragments:
    @pytest.mark.parametrize("fragments", [None, "x", [], [None, "x"], [{"function": None}, {"function": {"name": 5}}]])
    def test_what_are_no_calls_raises_nothing(self, fragments: Any) -> None:
        ToolCallFragments().put_right(fragments)

    def test_an_id_that_is_made_up_is_no_other_calls(self) -> None:
        """Clients keep calls of a whole conversation by their ids."""
        made = [ToolCallFragments(at_origin=True).put_right([{"function": {"name": "f"}}]) for _ in range(2)]

        assert made[0][0]["id"] != made[1][0]["id"]

    def test_who_reads_the_same_frames_makes_up_the_same_id(self) -> None:
        """A stream that is read again, at another coordinator too, says what it said before."""
        fragments = [{"function": {"name": "f"}}, {"function": {"name": "g"}}]
        made = [ToolCallFragments().put_right(msgspec.json.decode(msgspec.json.encode(fragments))) for _ in range(2)]

        assert made[0] == made[1]
        assert [call["id"] for call in made[0]] == ["call_0", "call_1"]

    def test_a_tool_of_another_type_gets_no_arguments(self) -> None:
        fragments = ToolCallFragments()
        (call,) = fragments.put_right([{"id": "1", "custom": {"name": "f", "input": "x"}}])

        assert call == {"id": "1", "index": 0, "type": "custom", "custom": {"name": "f", "input": "x"}}
        assert fragments.missing() == []
