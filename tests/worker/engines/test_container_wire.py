"""What a container is sent, what its answers mean, and that a stream's bytes come out as they went in."""

import base64
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.container_wire import (
    ERROR_BODY_MAX,
    STOPPED,
    StreamFrames,
    read_output,
    read_step,
    refused,
)
from comptoir.worker.engines.hidden import Hidden

SPEC = ContainerSpec(id="a", url="http://10.1.2.3:3000", bearer="s3cret")
HIDDEN = Hidden(SPEC.url, SPEC.bearer)


def request(body: bytes, *outputs: str, model: str = "a") -> EngineRequest:
    return EngineRequest("container", model, body, tuple(Frame(text, 1, STOPPED) for text in outputs))


def bytes_of(frames: list[Frame]) -> bytes:
    """Put a streamed run's frames back together, as the coordinator does."""
    found = b""
    for frame in frames:
        extra = msgspec.json.decode(frame.extra) if frame.extra else {}
        found += base64.b64decode(extra["base64"]) if "base64" in extra else frame.text.encode()
    return found


def framed(pieces: list[bytes]) -> list[Frame]:
    maker = StreamFrames()
    return [*itertools.chain.from_iterable(map(maker.feed, pieces)), *maker.end()]


class TestReadStep:
    def test_the_data_goes_word_for_word(self) -> None:
        """256-bit integers and odd spacing included."""
        data = b'{ "r":115792089237316195423570985008687907853269984665640564039457584007913129639935,"f":1.50 ,"r":2}'

        step = read_step(request(b'{"containers":["a"],"data":' + data + b"}"))

        assert step.body == b'{"source":1,"destination":1,"data":' + data + b',"requires_proof":false}'
        assert not step.stream

    def test_a_later_step_gets_the_output_before_it_word_for_word(self) -> None:
        body = b'{"containers":["a","b","c"],"data":0,"requires_proof":true}'

        step = read_step(request(body, '["ignored"]', '{ "é" : 1e400 }\n', model="c"))

        assert step.body == '{"source":1,"destination":1,"data":{ "é" : 1e400 }\n,"requires_proof":true}'.encode()

    @pytest.mark.parametrize(("proof", "rest"), [(b"false", b"}"), (b"true", b',"requires_proof":true}')])
    def test_only_the_last_container_streams(self, proof: bytes, rest: bytes) -> None:
        body = b'{"containers":["a","b"],"data":1,"stream":true,"requires_proof":%b}' % proof

        first, last = read_step(request(body)), read_step(request(body, "2", model="b"))

        assert not first.stream and b'"destination":1' in first.body
        assert last.stream and last.body == b'{"source":1,"destination":2,"data":2' + rest

    @pytest.mark.parametrize(
        ("given", "code", "fault"),
        [
            (request(b'{"containers":["a","b"],"data":1}', model="b"), "wrong_step", "coordinator"),
            (request(b'{"containers":["a"],"data":1}', "1"), "cannot_continue", "capacity"),
            (request(b'{"containers":[],"data":1}'), "cannot_continue", "capacity"),
            (request(b'{"containers":["a"]}'), "bad_request", "coordinator"),
            (request(b"no"), "bad_request", "coordinator"),
        ],
    )
    def test_what_is_not_its_turn_is_refused(self, given: EngineRequest, code: str, fault: str) -> None:
        with pytest.raises(EngineError) as caught:
            read_step(given)

        assert (caught.value.code, caught.value.fault) == (code, fault)


class TestReadOutput:
    @pytest.mark.parametrize("text", ['{"a": 1}', "[1,2]\n", '"é"', "null", " 1e999 "])
    def test_any_json_is_an_output_word_for_word(self, text: str) -> None:
        assert read_output(text.encode(), HIDDEN) == text

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"<html>oops</html>", "<html>oops</html>"),
            (b'{"a": 1', '{"a": 1'),
            (b'{"a": NaN}', '{"a": NaN}'),
            (b'"\xff"', '"\ufffd"'),
            (b"", "is empty"),
            (b"[" * 100_000, "[[["),
            (b"see http://10.1.2.3:3000/x", "see …/x"),
        ],
    )
    def test_anything_else_is_the_hosts_failure(self, body: bytes, words: str) -> None:
        with pytest.raises(EngineError) as caught:
            read_output(body, HIDDEN)

        assert words in caught.value.message and len(caught.value.message) <= 2000
        assert (caught.value.code, caught.value.fault) == ("container_failed", "host")


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "headers", "code", "fault"),
        [
            (500, {}, "container_failed", "host"),
            (503, {}, "container_failed", "host"),
            (503, {"Retry-After": "7"}, "container_busy", "capacity"),
            (429, {}, "container_busy", "capacity"),
            (408, {}, "container_busy", "capacity"),
            (401, {}, "container_failed", "host"),
            (403, {}, "container_failed", "host"),
            (404, {}, "container_failed", "host"),
            (405, {}, "container_failed", "host"),
            (400, {}, "container_refused", "buyer"),
            (422, {}, "container_refused", "buyer"),
            (302, {"Location": "http://10.1.2.3:3000/x"}, "container_failed", "host"),
        ],
    )
    def test_the_status_says_whose_fault_it_is(
        self, status: int, headers: dict[str, str], code: str, fault: str
    ) -> None:
        error = refused(status, headers, b'{"error": "boom"}', HIDDEN)

        assert (error.code, error.fault, error.status) == (code, fault, status)
        assert error.message == '{"error": "boom"}' or status == 302

    def test_retry_after_is_kept(self) -> None:
        assert refused(503, {"Retry-After": "7"}, b"later", HIDDEN).retry_after_s == 7

    def test_what_it_said_is_bounded_and_its_address_and_bearer_are_not_in_it(self) -> None:
        said = b"no route to http://10.1.2.3:3000/service_output (10.1.2.3:3000, 10.1.2.3) with s3cret " + b"x" * 3000

        error = refused(500, {}, said, HIDDEN)

        assert error.message.startswith("no route to …/service_output (…, …) with … xxx")
        assert len(error.message) == 2000
        assert b"10.1.2.3" not in error.body and b"s3cret" not in error.body and len(error.body) > 3000

    @pytest.mark.parametrize(
        ("url", "said", "told"),
        [
            ("http://shout", "shout! at http://shout/x", "shout! at …/x"),
            ("http://shout:3000/a", "shout shout:3000 shout:3000/a", "shout … …"),
            ("https://gpu.internal/a", "gpu.internal says gpu.internal/a", "… says …"),
            ("http://[::1]:3000", "[::1]:3000 ::1", "… …"),
        ],
    )
    def test_a_word_that_is_no_address_stays(self, url: str, said: str, told: str) -> None:
        assert Hidden(url).text(said) == told

    def test_a_body_that_is_too_long_is_not_kept_in_part(self) -> None:
        assert refused(500, {}, b"x" * (ERROR_BODY_MAX + 1), HIDDEN).body == b""

    def test_a_container_that_says_nothing_gets_words(self) -> None:
        assert refused(500, {}, b"", HIDDEN).message == "the container answered HTTP 500 and said nothing"


TEXT = "aé€𝄞\x00\n"
PIECES = st.lists(st.binary(max_size=8) | st.text(max_size=4).map(str.encode), max_size=12)


class TestStreamFrames:
    @settings(deadline=None)
    @given(PIECES)
    def test_whatever_goes_in_comes_out(self, pieces: list[bytes]) -> None:
        frames = framed(pieces)

        assert bytes_of(frames) == b"".join(pieces)
        assert [frame.tokens for frame in frames] == [1] + [0] * (len(frames) - 1)
        assert frames[-1] == Frame("", int(len(frames) == 1), STOPPED)
        assert all(frame.text or frame.extra for frame in frames)

    @settings(deadline=None)
    @given(st.text(max_size=40), st.lists(st.integers(0, 200), max_size=12))
    def test_text_stays_text_wherever_it_is_cut(self, text: str, cuts: list[int]) -> None:
        data = text.encode()
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

        frames = framed([data[begin:end] for begin, end in itertools.pairwise(places)])

        assert "".join(frame.text for frame in frames) == text
        assert all(not frame.extra for frame in frames[:-1])

    def test_each_character_leaves_with_its_last_byte(self) -> None:
        maker = StreamFrames()

        texts = ["".join(frame.text for frame in maker.feed(bytes([byte]))) for byte in TEXT.encode()]

        assert texts == ["a", "", "é", "", "", "€", "", "", "", "𝄞", "\x00", "\n"]

    def test_a_broken_byte_costs_the_rest_of_its_piece_only(self) -> None:
        frames = framed([b"one \xff two \xc3", b"\xa9 three"])

        assert [frame.text for frame in frames] == ["one ", "", "é three", ""]
        assert frames[1].extra == b'{"base64":"%b"}' % base64.b64encode(b"\xff two ")

    def test_what_is_held_back_at_the_end_is_sent(self) -> None:
        assert bytes_of(framed([b"\xf0\x9d", b"\x84"])) == b"\xf0\x9d\x84"
