"""The openai engine against a server that fails in every way real ones do."""

import asyncio
import socket

import pytest

from comptoir.link import Frame
from comptoir.worker.engines import openai_upstream
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.openai import OpenAIEngine
from tests.worker.openai_play import STOP, fail, play, request
from tests.worker.openai_stand_in import Answer, OpenAIStandIn, Request, delta, sse, stream_of

OPENAI_ERROR = b'{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":null}}'

ELSEWHERE = "the engine's server redirects elsewhere (HTTP 302), which is not followed"
REFUSALS = [
    # status, headers, body, fault, message, seconds to wait
    (400, {}, OPENAI_ERROR, "buyer", "too long", 0.0),
    (413, {}, OPENAI_ERROR, "buyer", "too long", 0.0),
    (422, {}, b'{"detail":[{"loc":["body"]}]}', "buyer", '[{"loc":["body"]}]', 0.0),
    (401, {}, OPENAI_ERROR, "host", "the engine's server refuses the worker's api key: too long", 0.0),
    (
        403,
        {},
        b"",
        "host",
        "the engine's server refuses the worker's api key: the engine's server answered HTTP 403",
        0.0,
    ),
    (404, {}, b'{"error":"model not found"}', "host", "model not found", 0.0),
    (405, {}, b"", "host", "the engine's server answered HTTP 405", 0.0),
    (302, {"Location": "http://127.0.0.1:1/"}, b"", "host", ELSEWHERE, 0.0),
    (429, {"Retry_After": "7"}, OPENAI_ERROR, "capacity", "too long", 7.0),
    (429, {"retry_after_ms": "250", "Retry_After": "7"}, OPENAI_ERROR, "capacity", "too long", 0.25),
    (429, {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, OPENAI_ERROR, "capacity", "too long", 0.0),
    (429, {"Retry_After": "soon"}, OPENAI_ERROR, "capacity", "too long", 0.0),
    (429, {"Retry_After": "99999999"}, OPENAI_ERROR, "capacity", "too long", 3600.0),
    (503, {"Retry_After": "1.5"}, b"loading", "capacity", "the engine's server answered HTTP 503", 1.5),
    (500, {}, b'{"message":"cuda"}', "host", "cuda", 0.0),
    (502, {}, b"<html>", "host", "the engine's server answered HTTP 502", 0.0),
]


class TestRefusal:
    @pytest.mark.parametrize(("status", "headers", "body", "fault", "message", "retry_after_s"), REFUSALS)
    async def test_a_status_is_attributed(
        self,
        server: OpenAIStandIn,
        engine: OpenAIEngine,
        status: int,
        headers: dict[str, str],
        body: bytes,
        fault: str,
        message: str,
        retry_after_s: float,
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(status, body, **headers)

        server.handler = handle

        _, error = await fail(engine)

        assert (error.fault, error.status, error.message) == (fault, status, message)
        assert (error.body, error.retry_after_s) == (body, retry_after_s)

    async def test_a_body_beyond_the_bound_is_left_out(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(400, b'{"error":"' + b"x" * 100_000 + b'"}')

        server.handler = handle

        _, error = await fail(engine)

        assert (error.fault, error.body) == ("buyer", b"")

    async def test_nobody_there_is_the_hosts_fault(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            engine._upstream.base = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
            _, error = await fail(engine)
        await engine.close()

        assert (error.code, error.fault) == ("upstream_unreachable", "host")

    async def test_a_server_that_does_not_stream_is_said(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(200, b"{}")

        server.handler = handle

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_protocol", "host")

    async def test_silence_before_the_answer_times_out(
        self, server: OpenAIStandIn, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await asyncio.Event().wait()

        server.handler = handle
        monkeypatch.setattr(openai_upstream, "FIRST_BYTE_TIMEOUT_S", 0.02)

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_timeout", "host")


class TestBrokenStream:
    @pytest.mark.parametrize(
        "event",
        [
            b'{"error":{"message":"CUDA out of memory","type":"server_error","code":500}}',
            b'{"object":"error","message":"CUDA out of memory","code":500}',
        ],
    )
    async def test_an_error_event_ends_it_after_what_was_made(
        self, server: OpenAIStandIn, engine: OpenAIEngine, event: bytes
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), event))

        text, error = await fail(engine)

        assert text == "a"
        assert (error.code, error.fault, error.body) == ("upstream_error", "host", event)
        assert "CUDA out of memory" in error.message

    async def test_an_event_named_error_ends_it(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(b'event: error\ndata: {"message":"boom"}\n\n')

        _, error = await fail(engine)

        assert error.message.endswith("boom")

    async def test_death_is_never_a_silent_end(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(delta({"content": "a"}), done=False))
            await read_it.wait()
            answer.reset()

        read_it = asyncio.Event()
        server.handler = handle
        stream = engine.run(request())
        assert await anext(stream) == Frame("a")
        read_it.set()

        with pytest.raises(EngineError, match="broke mid-answer") as caught:
            await anext(stream)

        assert (caught.value.code, caught.value.fault) == ("upstream_cut", "host")

    async def test_a_clean_end_without_done_and_reason_is_a_fault(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), done=False))

        text, error = await fail(engine)

        assert (text, error.code, error.fault) == ("a", "upstream_cut", "host")

    async def test_a_clean_end_with_a_reason_is_an_answer(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), STOP, done=False))

        frames, finish = await play(engine)

        assert (frames, finish.finish_reason) == ([Frame("a")], "stop")

    async def test_a_last_event_without_blank_line_counts(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), done=False) + b"data: [DONE]")

        frames, _ = await play(engine)

        assert frames == [Frame("a")]

    async def test_rubbish_is_a_fault(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(b"data: <html>\n\n")

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_protocol", "host")

    async def test_silence_mid_answer_times_out(
        self, server: OpenAIStandIn, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(delta({"content": "a"}), done=False))
            await asyncio.Event().wait()

        server.handler = handle
        monkeypatch.setattr(openai_upstream, "IDLE_TIMEOUT_S", 0.02)

        text, error = await fail(engine)

        assert (text, error.code) == ("a", "upstream_timeout")


class TestRedirect:
    @pytest.mark.parametrize("status", [307, 308])
    @pytest.mark.parametrize("absolute", [True, False])
    async def test_at_the_same_server_it_is_followed_with_the_whole_request(
        self, server: OpenAIStandIn, engine: OpenAIEngine, status: int, absolute: bool
    ) -> None:
        async def handle(asked: Request, answer: Answer) -> None:
            if asked.path.endswith("/"):
                await stream_of(sse(delta({"content": "a"}), STOP))(asked, answer)
            else:
                target = (server.base_url if absolute else "") + asked.path + "/"
                await answer.whole(status, b"", Location=target)

        server.handler = handle

        frames, _ = await play(engine, request(seed=7))

        assert frames == [Frame("a")]
        assert [asked.path for asked in server.requests] == ["/v1/chat/completions", "/v1/chat/completions/"]
        assert server.requests[0].body == server.requests[1].body

    @pytest.mark.parametrize(
        ("status", "target"),
        [
            (307, "http://10.1.2.3:9/v1/chat/completions"),
            (307, "https://127.0.0.1:{port}/v1/chat/completions"),
            (308, "http://localhost:{port}/v1/chat/completions"),
            (307, "http://[::1"),
            (302, "/elsewhere"),
            (303, ""),
        ],
    )
    async def test_elsewhere_neither_prompt_nor_key_go(
        self, server: OpenAIStandIn, engine: OpenAIEngine, status: int, target: str
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(status, b"", Location=target.format(port=server.port))

        server.handler = handle

        _, error = await fail(engine)

        assert (error.code, error.fault, len(server.requests)) == ("upstream_redirect", "host", 1)
        assert error.message == ELSEWHERE.replace("302", str(status))

    async def test_in_a_circle_it_ends(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(asked: Request, answer: Answer) -> None:
            await answer.whole(307, b"", Location=asked.path)

        server.handler = handle

        _, error = await fail(engine)

        assert (error.code, "without end" in error.message) == ("upstream_redirect", True)
        assert len(server.requests) == openai_upstream.REDIRECTS_MAX + 1

    async def test_the_list_of_models_may_move_at_the_same_server(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.models_redirect = "/other/models"

        assert [model.name for model in await engine.models()] == ["up/model-7b"]

    async def test_an_owner_is_told_where_the_list_of_models_went(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.models_redirect = "http://10.1.2.3/v1/models"

        with pytest.raises(EngineError, match=r"redirects to http://10\.1\.2\.3/v1/models.*give that address"):
            await engine.models()


class TestKeptConnection:
    @pytest.mark.parametrize("size", [10, 2 * 1024 * 1024])
    async def test_one_that_is_closed_as_it_is_used_costs_nothing(
        self, server: OpenAIStandIn, engine: OpenAIEngine, size: int
    ) -> None:
        """All kept connections are closed: the second try must not take another of them."""
        held = asyncio.Event()

        async def hold(asked: Request, answer: Answer) -> None:
            if len(server.requests) == 3:
                held.set()
            await held.wait()
            await HI(asked, answer)

        server.handler = hold
        await asyncio.gather(*(play(engine) for _ in range(3)))
        before = server.connections

        async def once_used(asked: Request, answer: Answer) -> None:
            if server.connections == before:
                answer.reset()
            else:
                await HI(asked, answer)

        server.handler = once_used
        server.requests.clear()
        frames, _ = await play(engine, request(prompt="x" * size))

        assert frames == [Frame("a")]
        assert (server.connections, len(server.requests)) == (before + 1, 2)

    async def test_it_is_tried_once_more_and_not_for_ever(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def reset(_: Request, answer: Answer) -> None:
            answer.reset()

        server.handler = reset

        _, error = await fail(engine)

        assert (error.code, error.fault, len(server.requests)) == ("upstream_unreachable", "host", 2)

    async def test_what_has_begun_is_not_tried_again_and_the_next_is_answered(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        async def dies(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(delta({"content": "a"}), done=False))
            answer.reset()

        server.handler = dies
        _, error = await fail(engine)
        asked = len(server.requests)
        server.handler = HI

        frames, _ = await play(engine)

        assert (error.code, asked, frames) == ("upstream_cut", 1, [Frame("a")])


HI = stream_of(sse(delta({"content": "a"}), STOP))
