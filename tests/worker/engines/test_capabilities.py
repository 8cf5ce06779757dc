"""What models behind OpenAI-compatible servers are found to be able to do, and what is only claimed for them."""

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comptoir.worker.engines import openai_capabilities
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.demo import DemoEngine
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.engines.openai_capabilities import PICTURE_PIXELS, Quiet, picture_of
from tests.worker import language_servers as servers
from tests.worker.language_servers import CONTEXT_TOKENS, MODEL, LanguageServer
from tests.worker.openai_play import play, request
from tests.worker.openai_stand_in import Answer, OpenAIStandIn, delta, serve_openai, sse

FOUND: dict[Callable[[], LanguageServer], tuple[dict[str, str], dict[str, str]]] = {
    servers.Vllm: ({}, {"tools": "probed", "vision": "probed", "schema": "probed"}),
    servers.VllmWithTextAlone: ({}, {"tools": "lacking", "vision": "lacking", "schema": "probed"}),
    servers.Sglang: ({"vision": "claimed"}, {"tools": "probed", "vision": "probed", "schema": "probed"}),
    servers.LlamaCpp: (
        {"tools": "lacking", "vision": "lacking"},
        {"tools": "lacking", "vision": "lacking", "schema": "probed"},
    ),
    servers.Ollama: (
        {"tools": "claimed", "vision": "claimed", "reasoning": "lacking"},
        {"tools": "claimed", "vision": "probed", "schema": "probed", "reasoning": "lacking"},
    ),
    servers.Tgi: ({"vision": "lacking"}, {"tools": "probed", "vision": "lacking", "schema": "lacking"}),
    servers.LmStudio: (
        {"tools": "claimed", "vision": "lacking"},
        {"tools": "probed", "vision": "lacking", "schema": "probed"},
    ),
    servers.OlderLmStudio: (
        {"tools": "claimed", "vision": "lacking"},
        {"tools": "probed", "vision": "lacking", "schema": "probed"},
    ),
    servers.TensorRt: ({}, {"tools": "probed", "vision": "lacking", "schema": "probed"}),
    servers.OpenAI: ({}, {}),
    servers.Thinking: ({}, {"tools": "probed", "vision": "probed", "schema": "probed", "reasoning": "probed"}),
}
"""What each server says of itself, and what is known once its model was asked."""

CONTEXTS: dict[Callable[[], LanguageServer], int] = {
    servers.Vllm: CONTEXT_TOKENS,
    servers.Sglang: CONTEXT_TOKENS,
    servers.LlamaCpp: CONTEXT_TOKENS,
    servers.Ollama: CONTEXT_TOKENS,
    servers.Tgi: CONTEXT_TOKENS,
    servers.LmStudio: CONTEXT_TOKENS,
    servers.OlderLmStudio: CONTEXT_TOKENS,
    servers.TensorRt: 77,
}
"""The context that is offered in front of each server, which runs its model with `CONTEXT_TOKENS`; 77: it won't say."""


@asynccontextmanager
async def serving(
    kind: Callable[[], LanguageServer], **options: Any
) -> AsyncIterator[tuple[LanguageServer, OpenAIEngine]]:
    async with serve_openai() as stand_in:
        speaking = kind()
        stand_in.models, stand_in.handler = speaking.models, speaking.handle
        engine = OpenAIEngine(base_url=stand_in.base_url, context_tokens=77, **options)
        await engine.start()
        try:
            yield speaking, engine
        finally:
            await engine.close()


async def capabilities(engine: OpenAIEngine) -> dict[str, str]:
    (offer,) = await engine.models()
    return offer.capabilities


class TestFound:
    @pytest.mark.parametrize("kind", FOUND, ids=[kind.__name__ for kind in FOUND])
    async def test_what_is_claimed_is_offered_at_once_and_what_is_seen_after_it_was_asked_for(
        self, kind: Callable[[], LanguageServer]
    ) -> None:
        stated, found = FOUND[kind]
        async with serving(kind) as (_, engine):
            assert await capabilities(engine) == stated

            await engine.detect()
            assert await capabilities(engine) == found

    @pytest.mark.parametrize("kind", CONTEXTS, ids=[kind.__name__ for kind in CONTEXTS])
    async def test_the_context_in_force_is_offered(self, kind: Callable[[], LanguageServer]) -> None:
        async with serving(kind) as (_, engine):
            (offer,) = await engine.models()

            assert offer.context_tokens == CONTEXTS[kind]

    async def test_what_is_known_to_be_lacking_is_not_asked_for(self) -> None:
        async with serving(servers.LlamaCpp) as (speaking, engine):
            await engine.detect()

            assert not [body for body in speaking.chats if servers.wanted_of(body) in ("tools", "vision")]

    async def test_a_model_is_asked_once_and_with_few_tokens(self) -> None:
        async with serving(servers.Sglang) as (speaking, engine):
            await engine.detect()
            asked = [body for body in speaking.chats if servers.wanted_of(body)]
            await play(engine, request(model=MODEL, messages=[{"role": "user", "content": "plain"}]))
            await engine.models()

            assert [servers.wanted_of(body) for body in asked] == ["tools", "tools", "vision", "vision", "schema"]
            assert sum(body["max_tokens"] for body in asked) <= 400
            assert [body for body in speaking.chats if servers.wanted_of(body)] == asked

    async def test_an_owner_says_what_a_model_can_do_and_it_is_not_asked(self) -> None:
        async with serving(servers.Vllm, capabilities="tools+reasoning") as (speaking, engine):
            await engine.detect()

            assert await capabilities(engine) == {"tools": "claimed", "reasoning": "claimed"}
            assert not [body for body in speaking.chats if servers.wanted_of(body)]

    def test_an_unknown_capability_is_refused(self) -> None:
        with pytest.raises(EngineError, match="not flying"):
            OpenAIEngine(base_url="http://127.0.0.1:1", capabilities="tools+flying")

    async def test_a_server_that_was_away_is_asked_again(self, server: OpenAIStandIn) -> None:
        """It may be another one, or have other flags."""
        speaking = servers.Vllm()
        server.models, server.handler = speaking.models, speaking.handle
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        await engine.detect()
        server.models_status = 503
        with pytest.raises(EngineError):
            await engine.models()
        server.models_status = 200

        assert await capabilities(engine) == {}
        await engine.close()

    async def test_an_embedding_model_is_not_asked(self) -> None:
        async with serving(servers.Ollama, kinds="embedding") as (speaking, engine):
            await engine.detect()

            assert (await capabilities(engine), speaking.chats) == ({}, [])

    async def test_a_model_that_names_a_colour_without_seeing_it_is_not_believed(self) -> None:
        class Guessing(servers.VllmWithoutTokenizer):
            async def _beyond_text(self, wanted: str, body: dict[str, Any], answer: Answer) -> None:
                answer.begin_stream()
                await answer.piece(sse(delta({"content": "It is red."}, finish_reason="stop")))
                answer.end_stream()

        async with serving(Guessing) as (_, engine):
            await engine.detect()

            assert await capabilities(engine) == {}

    @pytest.mark.parametrize(
        ("refusal", "known"),
        [
            ((500, b'{"error":{"message":"image input is not supported - hint: you may need to provide the mmproj"}}'), "lacking"),
            ((500, b'{"error":{"message":"CUDA out of memory"}}'), None),
            ((503, b'{"error":{"message":"image worker is busy"}}'), None),
            ((429, b"{}"), None),
            ((400, b'{"error":{"message":"maximum context length is 64 tokens, your messages resulted in 99 tokens"}}'), None),
            ((422, b"text/plain"), "lacking"),
        ],
        ids=["its words", "memory", "busy", "too many", "too long", "unreadable"],
    )  # fmt: skip
    async def test_a_refusal_counts_only_if_it_is_for_what_was_asked(
        self, refusal: tuple[int, bytes], known: str | None
    ) -> None:
        class Refusing(servers.Vllm):
            refuses = {"vision": refusal}

        async with serving(Refusing) as (_, engine):
            await engine.detect()

            assert (await capabilities(engine)).get("vision") == known

    async def test_questions_take_bounded_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Slow(servers.Vllm):
            async def _beyond_text(self, wanted: str, body: dict[str, Any], answer: Answer) -> None:
                await asyncio.Event().wait()

        monkeypatch.setattr(openai_capabilities, "CAPABILITIES_TIMEOUT_S", 0.05)
        async with serving(Slow) as (speaking, engine):
            async with asyncio.timeout(5):
                await engine.detect()

            assert await capabilities(engine) == {}
            assert [servers.wanted_of(body) for body in speaking.chats if servers.wanted_of(body)] == ["tools"]


class TestQuiet:
    async def test_a_question_waits_until_no_job_runs(self) -> None:
        quiet, asked = Quiet(), asyncio.Event()

        async def question() -> str:
            asked.set()
            return "answer"

        with quiet.job():
            asking = asyncio.create_task(quiet.ask(question))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not asked.is_set()

        assert await asking == "answer"

    async def test_a_job_that_begins_stops_a_question_which_is_asked_again(self) -> None:
        quiet, begun = Quiet(), [asyncio.Event(), asyncio.Event()]
        asked = iter(begun)

        async def question() -> str:
            mine = next(asked)
            mine.set()
            if mine is begun[0]:
                await asyncio.Event().wait()
            return "answer"

        asking = asyncio.create_task(quiet.ask(question))
        await begun[0].wait()
        with quiet.job():
            for _ in range(5):
                await asyncio.sleep(0)
            assert not begun[1].is_set()

        assert await asking == "answer"

    async def test_one_that_is_disturbed_again_and_again_is_given_up(self) -> None:
        quiet, asked = Quiet(), asyncio.Queue[None]()

        async def question() -> str:
            asked.put_nowait(None)
            await asyncio.Event().wait()
            return ""

        asking = asyncio.create_task(quiet.ask(question))
        for _ in range(openai_capabilities.DISTURBED_MAX):
            await asked.get()
            with quiet.job():
                pass

        assert await asking is None

    async def test_what_a_question_raises_is_raised(self) -> None:
        async def question() -> str:
            raise EngineError("bad_request", "no")

        with pytest.raises(EngineError):
            await Quiet().ask(question)

    async def test_closing_the_engine_ends_a_question(self) -> None:
        quiet, asked = Quiet(), asyncio.Event()

        async def question() -> str:
            asked.set()
            await asyncio.Event().wait()
            return ""

        asking = asyncio.create_task(quiet.ask(question))
        await asked.wait()
        asking.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asking


class TestPicture:
    def test_it_is_a_png_of_one_colour(self) -> None:
        """Read as the format says, chunk by chunk, checksums included."""
        data = base64.b64decode(picture_of("blue"))
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        chunks, place = {}, 8
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "big")
            name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
            assert int.from_bytes(data[place + 8 + size : place + 12 + size], "big") == zlib.crc32(name + body)
            chunks[name] = body
            place += 12 + size
        pixels = zlib.decompress(chunks[b"IDAT"])
        assert chunks[b"IHDR"][:8] == PICTURE_PIXELS.to_bytes(4, "big") * 2
        assert pixels == (b"\x00" + b"\x00\x00\xff" * PICTURE_PIXELS) * PICTURE_PIXELS


class TestLlamaCpp:
    async def test_a_file_says_it_all(self) -> None:
        engine = DemoEngine()
        await engine.start()
        (offer,) = await engine.models()
        await engine.close()

        assert offer.capabilities["vision"] == "lacking"
        assert offer.capabilities["schema"] == "claimed"
