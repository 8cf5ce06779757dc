"""Going on at OpenAI-compatible servers: what is found out, what is asked, what is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from comptoir.link import Frame, Usage
from comptoir.worker.engines import openai_metadata, openai_probe
from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.engines.openai_continue import (
    ContinuationMethod,
    ContinuationReader,
    ContinuationRequest,
    Delivered,
    ProbeResult,
    join,
    read_delivered,
    segment_usage,
)
from tests.worker import language_servers as servers
from tests.worker.language_servers import ANSWERS, MODEL, LanguageServer
from tests.worker.openai_play import fail, play
from tests.worker.openai_stand_in import Answer, OpenAIStandIn, Request, delta, serve_openai, sse, stream_of

MESSAGES = [{"role": "user", "content": "plain"}]
BEGINNING = [Frame("A host"), Frame(" that"), Frame(" dies")]
REST = ANSWERS["plain"].removeprefix("A host that dies")


def asked(*prefix: Frame, kind: str = "chat", max_tokens: int = 0, **fields: Any) -> EngineRequest:
    body = {"messages": MESSAGES, "temperature": 0, **fields} if kind == "chat" else fields
    return EngineRequest(kind, MODEL, msgspec.json.encode(body), prefix or tuple(BEGINNING), max_tokens)


@asynccontextmanager
async def serving(kind: Callable[[], LanguageServer]) -> AsyncIterator[tuple[LanguageServer, OpenAIEngine]]:
    """Run a server of *kind* and an engine in front of it that has found out what it can do."""
    async with serve_openai() as stand_in:
        speaking = kind()
        stand_in.models, stand_in.handler = speaking.models, speaking.handle
        engine = OpenAIEngine(base_url=stand_in.base_url)
        await engine.start()
        await engine.detect()
        speaking.chats.clear()
        speaking.completions.clear()
        try:
            yield speaking, engine
        finally:
            await engine.close()


async def text(engine: OpenAIEngine, request: EngineRequest) -> str:
    frames, _ = await play(engine, request)
    return "".join(frame.text for frame in frames)


class TestDetect:
    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            (servers.Vllm, "prompt token ids, continue_final_message, plain completion (vLLM 0.11.0)"),
            (servers.VllmWithoutTokenizer, "continue_final_message, plain completion"),
            (servers.Sglang, "continue_final_message, plain completion (SGLang)"),
            (servers.LlamaCpp, "prompt token ids, continue_final_message, plain completion (llama.cpp b6000)"),
            (servers.Ollama, "continue_final_message (Ollama 0.12.3)"),
            (servers.Tgi, "continue_final_message, plain completion (TGI 3.3.6)"),
            (servers.StrictPrefill, "assistant prefill, plain completion"),
            (servers.Mistral, "prefix: true, plain completion"),
            (servers.DeepSeek, "prefix: true, plain completion"),
        ],
    )
    async def test_what_a_server_can_do_is_found_out(self, kind: Callable[[], LanguageServer], words: str) -> None:
        async with serving(kind) as (_, engine):
            (offer,) = await engine.models()

            assert offer.can_continue
            assert engine.continuation(offer.name) == words

    @pytest.mark.parametrize("kind", servers.BEGINNING_ANEW)
    async def test_one_that_begins_anew_is_not_believed(self, kind: Callable[[], LanguageServer]) -> None:
        async with serving(kind) as (_, engine):
            (offer,) = await engine.models()

            assert not offer.can_continue

    async def test_llama_cpp_without_prefill_still_has_its_template(self) -> None:
        class NoPrefill(servers.LlamaCpp):
            prefills = False

        async with serving(NoPrefill) as (_, engine):
            assert engine.continuation(MODEL).startswith("prompt token ids, plain completion")

    async def test_a_server_that_fails_is_tried_again_after_an_answer(self, server: OpenAIStandIn) -> None:
        async def broken(request: Request, answer: Answer) -> None:
            await answer.whole(500, b"{}")

        speaking = servers.Vllm()
        server.models, server.handler = speaking.models, broken
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        await engine.detect()
        assert not (await engine.models())[0].can_continue

        server.handler = speaking.handle
        await play(engine, msgspec.structs.replace(asked(), prefix=()))
        async with asyncio.timeout(5):
            while not (await engine.models())[0].can_continue:
                await asyncio.sleep(0)
        await engine.close()

    async def test_a_slow_one_costs_bounded_time(self, server: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        async def slow(request: Request, answer: Answer) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(openai_probe, "PROBE_TIMEOUT_S", 0.05)
        monkeypatch.setattr(openai_probe, "SERVER_TIMEOUT_S", 0.05)
        monkeypatch.setattr(openai_metadata, "PLACE_TIMEOUT_S", 0.05)
        server.handler = slow
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        async with asyncio.timeout(5):
            await engine.detect()
        assert not (await engine.models())[0].can_continue
        await engine.close()

    async def test_only_the_first_model_is_tried_before_it_is_asked_for(self) -> None:
        """A server that loads models as they are asked for must not load them all for this."""

        class Two(servers.Ollama):
            @property
            def models(self) -> Any:
                return {"data": [{"id": MODEL}, {"id": "other"}]}

        async with serving(Two) as (speaking, engine):
            assert [offer.can_continue for offer in await engine.models()] == [True, False]
            assert speaking.chats == []

            await play(engine, msgspec.structs.replace(asked(), model="other", prefix=()))
            async with asyncio.timeout(5):
                while not (await engine.models())[1].can_continue:
                    await asyncio.sleep(0)

    async def test_a_server_that_is_not_to_be_tried_is_asked_nothing(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url, continues=False)
        await engine.start()
        await engine.detect()
        await play(engine, msgspec.structs.replace(asked(), prefix=()))
        await engine.close()

        assert [request.path for request in server.requests] == ["/v1/chat/completions"]

    async def test_a_server_that_was_away_is_examined_again(self) -> None:
        async with serve_openai() as stand_in:
            speaking = servers.Vllm()
            stand_in.models, stand_in.handler = speaking.models, speaking.handle
            engine = OpenAIEngine(base_url=stand_in.base_url)
            await engine.start()
            await engine.detect()
            stand_in.models_status = 503
            with pytest.raises(EngineError):
                await engine.models()
            stand_in.models_status = 200

            assert not (await engine.models())[0].can_continue
            await engine.close()


class TestChat:
    async def test_token_ids_are_template_and_text(self) -> None:
        async with serving(servers.Vllm) as (speaking, engine):
            frames, finish = await play(engine, asked(top_k=5, max_tokens=12, chat_template_kwargs={"a": 1}))

            (sent,) = speaking.completions
        prompt = servers.template(MESSAGES, open_end=False)
        assert sent["prompt"] == servers.ids_of(prompt) + servers.ids_of("A host that dies")
        assert (sent["top_k"], sent["max_tokens"], "messages" in sent, "chat_template_kwargs" in sent) == (
            5,
            9,
            False,
            False,
        )
        assert finish.usage.prompt_tokens == len(servers.tokens_of(prompt))
        assert sum(frame.tokens for frame in frames) == 9

    async def test_without_a_bound_a_completion_goes_on_to_the_end_of_the_context(self) -> None:
        async with serving(servers.Vllm) as (speaking, engine):
            assert await text(engine, asked()) == REST
            (sent,) = speaking.completions

        assert sent["max_tokens"] == servers.CONTEXT_TOKENS - len(sent["prompt"])

    async def test_a_full_context_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(servers, "CONTEXT_TOKENS", 8)
        async with serving(servers.Vllm) as (_, engine):
            _, error = await fail(engine, asked())

        assert (error.code, error.fault) == ("cannot_continue", "capacity")
        assert "context is full" in error.message

    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "plain"}, {"type": "image_url"}]}]},
            {"reasoning_effort": "low"},
        ],
        ids=["tools", "an image", "an option of the template"],
    )
    async def test_what_token_ids_can_not_carry_goes_as_a_message(self, fields: dict[str, Any]) -> None:
        async with serving(servers.Vllm) as (speaking, engine):
            assert await text(engine, asked(**fields)) == REST
            (sent,) = speaking.chats

        assert sent["messages"][-1] == {"role": "assistant", "content": "A host that dies"}
        assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)

    async def test_white_space_that_the_server_says_again_is_dropped(self) -> None:
        """Templates trim the end of a message, so it is not sent, and may come once more."""
        async with serving(servers.Sglang) as (speaking, engine):
            request = asked(
                Frame("First line"), Frame(" "), Frame("\n\n"), messages=[{"role": "user", "content": "lines"}]
            )
            rest = await text(engine, request)
            (sent,) = speaking.chats

        assert sent["messages"][-1]["content"] == "First line"
        assert "First line \n\n" + rest == ANSWERS["lines"]

    async def test_only_white_space_was_delivered(self) -> None:
        async with serving(servers.Sglang) as (speaking, engine):
            await text(engine, asked(Frame("\n")))
            (sent,) = speaking.chats

        assert sent["messages"] == MESSAGES

    async def test_what_is_not_touched_is_forwarded_byte_for_byte(self, server: OpenAIStandIn) -> None:
        speaking = servers.Sglang()
        server.models, server.handler = speaking.models, speaking.handle
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        await engine.detect()
        body = b'{"messages":[{"role":"user","content":"plain"}],"seed":123456789012345678901234567890,"x":[1.10]}'
        await play(engine, EngineRequest("chat", MODEL, body, tuple(BEGINNING)))
        await engine.close()

        assert b'"seed":123456789012345678901234567890' in server.requests[-1].body
        assert b'"x":[1.10]' in server.requests[-1].body

    async def test_a_server_that_refuses_it_after_all_is_not_asked_again(self) -> None:
        async with serving(servers.Sglang) as (speaking, engine):

            async def refusing(request: Request, answer: Answer) -> None:
                await answer.whole(400, b'{"error":{"message":"prefill is incompatible with enable_thinking"}}')

            speaking._chat = lambda body, answer: refusing(None, answer)  # type: ignore[method-assign, arg-type, assignment]
            _, error = await fail(engine, asked())
            (offer,) = await engine.models()

        assert (error.code, error.fault, offer.can_continue) == ("cannot_continue", "capacity", False)

    async def test_a_stop_string_across_the_cut_ends_it_with_the_prompt_counted(self) -> None:
        async with serving(servers.Vllm) as (_, engine):
            frames, finish = await play(engine, asked(stop=["dies in the"]))

        assert (frames, finish.finish_reason) == ([], "stop")
        prompt = servers.tokens_of(servers.template(MESSAGES, open_end=False))
        assert finish.usage == Usage(len(prompt), 0)

    async def test_an_answer_that_was_complete_is_only_finished(self) -> None:
        async with serving(servers.Vllm) as (speaking, engine):
            frames, finish = await play(engine, asked(max_tokens=3))
            again, stopped = await play(engine, asked(Frame("A host", 1, b'{"stop":true}')))

            assert (speaking.chats, speaking.completions) == ([], [])
        assert (frames, finish.finish_reason, finish.usage) == ([], "length", Usage())
        assert (again, stopped.finish_reason) == ([], "stop")


class TestGrammar:
    FORMAT = {"response_format": {"type": "json_object"}}

    async def test_the_likeliest_answer_is_made_again_and_compared(self) -> None:
        async with serving(servers.Sglang) as (speaking, engine):
            frames, finish = await play(engine, asked(**self.FORMAT))
            (sent,) = speaking.chats

        assert sent["messages"] == MESSAGES
        assert "".join(frame.text for frame in frames) == REST
        assert finish.usage.completion_tokens == sum(frame.tokens for frame in frames)

    async def test_another_answer_than_the_delivered_one_is_not_joined(self) -> None:
        async with serving(servers.Sglang) as (_, engine):
            said, error = await fail(engine, asked(Frame("A guest"), **self.FORMAT))

        assert (said, error.code, error.fault) == ("", "cannot_continue", "capacity")

    async def test_a_shorter_one_neither(self) -> None:
        async with serving(servers.Sglang) as (_, engine):
            said, error = await fail(engine, asked(Frame(ANSWERS["plain"] + " And"), **self.FORMAT))

        assert (said, error.code) == ("", "cannot_continue")


class TestCompletion:
    async def test_prompt_and_text_are_one_prompt(self) -> None:
        async with serving(servers.Sglang) as (speaking, engine):
            request = asked(Frame(" that"), Frame(" dies"), kind="completion", prompt="A host", max_tokens=40)
            frames, finish = await play(engine, request)
            (sent,) = speaking.completions

        assert sent["prompt"] == "A host that dies"
        assert sent["max_tokens"] == 38
        assert "".join(frame.text for frame in frames) == REST
        assert finish.usage.prompt_tokens == len(servers.tokens_of("A host"))

    async def test_ollama_would_make_a_chat_of_it(self) -> None:
        async with serving(servers.Ollama) as (speaking, engine):
            _, error = await fail(engine, asked(Frame(" that"), kind="completion", prompt="A host"))

            assert speaking.completions == []
        assert error.code == "cannot_continue"


class TestRefused:
    @pytest.mark.parametrize(
        "fields",
        [
            {"n": 2},
            {"best_of": 2},
            {"logprobs": True},
            {"logprobs": 0},
            {"echo": True},
            {"suffix": "x"},
            {"modalities": ["text", "audio"]},
            {"tools": [{}], "tool_choice": "required"},
            {"messages": [*MESSAGES, {"role": "assistant", "content": "I"}]},
            {"response_format": {"type": "json_object"}, "temperature": 1},
            {"guided_regex": "a+", "temperature": None},
        ],
    )
    async def test_what_has_no_one_text_to_go_on_with(self, fields: dict[str, Any]) -> None:
        with pytest.raises(EngineError) as raised:
            join(
                asked(**fields),
                read_delivered(BEGINNING),
                [ProbeResult(ContinuationMethod.TOKENS), ProbeResult(ContinuationMethod.FINAL)],
            )

        assert (raised.value.code, raised.value.fault) == ("cannot_continue", "capacity")

    @pytest.mark.parametrize("prompt", [[1, 2], ["a"], ["a", "b"], None])
    async def test_prompts_that_are_not_one_text(self, prompt: Any) -> None:
        with pytest.raises(EngineError) as raised:
            join(
                asked(kind="completion", prompt=prompt),
                read_delivered(BEGINNING),
                [ProbeResult(ContinuationMethod.PLAIN)],
            )

        assert raised.value.code == "cannot_continue"

    @pytest.mark.parametrize(
        "extra",
        [
            {"delta": {"tool_calls": []}},
            {"delta": {"reasoning_content": "Hm"}},
            {"delta": {"refusal": "No"}},
            {"logprobs": {}},
            {"index": 1},
            {"data": []},
        ],
    )
    def test_frames_that_are_more_than_text(self, extra: dict[str, Any]) -> None:
        with pytest.raises(EngineError) as raised:
            read_delivered([Frame("a"), Frame("b", 1, msgspec.json.encode(extra))])

        assert (raised.value.code, raised.value.fault) == ("cannot_continue", "capacity")

    def test_frames_without_any_text(self) -> None:
        with pytest.raises(EngineError, match="no text"):
            read_delivered([Frame("", 5)])

    def test_half_a_character(self) -> None:
        with pytest.raises(EngineError, match="inside of a character"):
            read_delivered([Frame("Look: "), Frame("\ufffd")])

    def test_what_another_engine_says_of_its_frames_does_not_matter(self) -> None:
        assert read_delivered([Frame("a", 2, b'{"ids":[1,2]}'), Frame(" ")]) == Delivered("a ", 3, 2)

    async def test_a_server_that_thinks_anew(self) -> None:
        async with serving(servers.Sglang) as (speaking, engine):

            async def thinking(body: Any, answer: Answer) -> None:
                events = sse(delta({"reasoning_content": "Hm"}), delta({"content": "x"}, finish_reason="stop"))
                await stream_of(events)(Request("POST", "", {}, b""), answer)

            speaking._chat = thinking  # type: ignore[method-assign]
            said, error = await fail(engine, asked())

        assert (said, error.code) == ("", "cannot_continue")


def continuation(**fields: Any) -> ContinuationRequest:
    return ContinuationRequest({}, "/x", 0, **fields)


def through(reader: ContinuationReader, *texts: str) -> str:
    frames = [fresh for one in texts for fresh in reader.feed(Frame(one))]
    return "".join(frame.text for frame in [*frames, *([] if reader.stopped else reader.end())])


class TestSeamReader:
    @pytest.mark.parametrize(
        ("repeated", "texts", "rest", "dropped"),
        [
            ("", ("a", "b"), "ab", 0),
            ("One, ", ("One", ", ", "two"), "two", 2),
            ("One, t", ("One, ", "two"), "wo", 1),
            ("One", ("One, two",), ", two", 0),
            ("Ünï🚀", ("Ü", "nï🚀", "!"), "!", 2),
        ],
    )
    def test_what_is_said_again_is_dropped(
        self, repeated: str, texts: tuple[str, ...], rest: str, dropped: int
    ) -> None:
        reader = ContinuationReader(continuation(repeated=repeated))

        assert through(reader, *texts) == rest
        assert reader.dropped_tokens == dropped

    @pytest.mark.parametrize(
        ("trimmed", "texts", "rest"),
        [
            (" ", (" two",), "two"),
            (" ", ("two",), "two"),
            ("\n\n", ("\n", "\n", "x"), "x"),
            ("\n\n", ("\n\nx",), "x"),
            ("\n\n", ("\n", "x"), "x"),
            (" \n", (" ", "x \n"), "x \n"),
            ("\n", ("\n\n", "x"), "\nx"),
        ],
    )
    def test_white_space_that_comes_again_is_dropped_once(
        self, trimmed: str, texts: tuple[str, ...], rest: str
    ) -> None:
        assert through(ContinuationReader(continuation(trimmed=trimmed)), *texts) == rest

    @pytest.mark.parametrize(
        ("rests", "texts", "rest", "stopped"),
        [
            (("D",), ("D", "x"), "", True),
            (("ND",), ("N", "Dx"), "", True),
            (("ND",), ("N", "ope"), "Nope", False),
            (("ND",), ("N",), "N", False),
            (("topper", "top"), ("t", "op"), "", True),
            (("ND", "X"), ("No", "ND"), "NoND", False),
        ],
    )
    def test_a_stop_string_that_began_before_ends_the_answer(
        self, rests: tuple[str, ...], texts: tuple[str, ...], rest: str, stopped: bool
    ) -> None:
        reader = ContinuationReader(continuation(stop_rests=rests))

        assert (through(reader, *texts), reader.stopped) == (rest, stopped)

    def test_a_buyer_who_wants_the_stop_string_gets_its_rest(self) -> None:
        reader = ContinuationReader(continuation(stop_rests=("ND",), keeps_stop=True))

        assert through(reader, "N", "Dx") == "ND"
        assert reader.stopped

    @pytest.mark.parametrize(
        ("stop", "text", "rests"),
        [
            ("END", "the E", ("ND",)),
            (["END", "DE"], "the END", ("E",)),
            ("aa", "aaa", ("a",)),
            (["abab"], "xaba", ("b", "bab")),
            ("END", "the ", ()),
            (None, "x", ()),
        ],
    )
    def test_which_rests_may_come(self, stop: Any, text: str, rests: tuple[str, ...]) -> None:
        _, made = join(asked(stop=stop), read_delivered([Frame(text)]), [ProbeResult(ContinuationMethod.FINAL)])

        assert made.stop_rests == rests


class TestSegmentUsage:
    DETAILS = (
        b'{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":16}}'
    )

    def test_the_forced_prefix_is_no_prompt(self) -> None:
        usage = segment_usage(Usage(20, 9, self.DETAILS), continuation=continuation(forced=12), dropped=0, given=9)

        assert (usage.prompt_tokens, usage.completion_tokens) == (8, 9)
        assert msgspec.json.decode(usage.details) == {
            "prompt_tokens": 8,
            "completion_tokens": 9,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 16},
        }

    @pytest.mark.parametrize(("dropped", "given", "completion"), [(4, 5, 5), (4, 9, 9), (0, 9, 9), (0, 12, 9)])
    def test_what_was_said_again_is_no_answer_if_it_was_counted(
        self, dropped: int, given: int, completion: int
    ) -> None:
        usage = segment_usage(Usage(20, 9, self.DETAILS), continuation=continuation(), dropped=dropped, given=given)

        assert usage.completion_tokens == completion

    def test_a_server_that_counts_nothing_is_counted_by_its_frames(self) -> None:
        assert segment_usage(Usage(0, 14), continuation=continuation(), dropped=5, given=9) == Usage(0, 9)
