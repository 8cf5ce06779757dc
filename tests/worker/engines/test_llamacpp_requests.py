"""The llamacpp engine: what it refuses, tools and schemas, cancellation, many at once, embeddings, starting."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.demo import MODEL, DemoEngine
from comptoir.worker.engines.llamacpp import LlamaCppEngine
from tests.worker.engines.demo_requests import ENDLESS, JSON_FORMAT, ask, chat, completion
from tests.worker.engines.gguf_edit import with_metadata

TOOLS_TEMPLATE = (
    "{%- if tools %}<|system|>You may call tools.\n<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
    "\n</tools><|end|>\n{% endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}<|user|>{{ message.content }}<|end|>\n"
    "{%- elif message.role == 'assistant' %}<|assistant|>{% if message.content %}{{ message.content }}{% endif %}"
    '{%- for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|end|>\n'
    "{% else %}<|system|>{{ message.content }}<|end|>\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "light",
        "description": "Switch the light.",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}


class TestStructuredAnswers:
    async def test_a_schema_is_kept(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("Return JSON", response_format=JSON_FORMAT))

        assert isinstance(msgspec.json.decode(answer.text)["open"], bool)
        assert answer.finish.finish_reason == "stop"

    async def test_a_model_without_tools_answers_plainly(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("What is Comptoir?", tools=[TOOL]))

        assert "open trading post" in answer.text

    async def test_a_model_without_tools_refuses_to_be_made_to_call_one(self, engine: DemoEngine) -> None:
        with pytest.raises(EngineError, match="tool_choice"):
            await ask(engine, chat("What is Comptoir?", tools=[TOOL], tool_choice="required"))

    async def test_tools_reach_a_model_that_knows_them(self, tmp_path: Path) -> None:
        path = with_metadata(MODEL, tmp_path / "tools.gguf", {"tokenizer.chat_template": TOOLS_TEMPLATE})
        engine = LlamaCppEngine(path=path, name="tools", context_tokens=1024, slots=1, threads=1)
        await engine.start()
        plain = await ask(engine, chat("hello", max_tokens=8))
        answer = await ask(engine, chat("hello", tools=[TOOL], max_tokens=8))
        rest = await ask(engine, chat("hello", tools=[TOOL], max_tokens=8, prefix=answer.frames[:3]))
        await engine.close()

        assert answer.finish.usage.prompt_tokens > plain.finish.usage.prompt_tokens + 50
        assert answer.tokens == answer.finish.usage.completion_tokens == 8
        assert rest.frames == answer.frames[3:]

    async def test_a_tool_that_is_not_there_is_refused(self, engine: DemoEngine) -> None:
        choice = {"type": "function", "function": {"name": "door"}}

        with pytest.raises(EngineError, match="no tool named door"):
            await ask(engine, chat("light on", tools=[TOOL], tool_choice=choice))


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"n": 2}, "n"),
            ({"temperature": 3}, "temperature"),
            ({"temperature": "hot"}, "temperature"),
            ({"top_p": 1.5}, "top_p"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": 1.5}, "max_tokens"),
            ({"messages": []}, "messages"),
            ({"messages": "hello"}, "messages"),
            ({"stop": ["x"] * 17}, "stop"),
            ({"stop": ["x" * 513]}, "stop"),
            ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
            ({"logit_bias": {"x": 1}}, "logit_bias"),
            ({"response_format": {"type": "xml"}}, "response_format.type"),
            ({"response_format": {"type": "json_schema"}}, "response_format"),
            ({"functions": [{}]}, "functions"),
        ],
    )
    async def test_names_the_field(self, engine: DemoEngine, fields: dict[str, Any], field: str) -> None:
        with pytest.raises(EngineError) as caught:
            await ask(engine, chat("What is Comptoir?", **fields))

        assert (caught.value.fault, caught.value.status) == ("buyer", 400)
        assert caught.value.message.startswith(f"{field}")
        assert msgspec.json.decode(caught.value.body)["error"]["param"] == field

    @pytest.mark.parametrize(
        "fields", [{"prompt": ""}, {"prompt": ["a", "b"]}, {"echo": True}, {"suffix": "x"}, {"best_of": 2}]
    )
    async def test_of_completions(self, engine: DemoEngine, fields: dict[str, Any]) -> None:
        with pytest.raises(EngineError) as caught:
            await ask(engine, completion(**({"prompt": "x"} | fields)))

        assert (caught.value.fault, caught.value.status) == ("buyer", 400)

    async def test_of_a_body_that_is_not_json(self, engine: DemoEngine) -> None:
        with pytest.raises(EngineError) as caught:
            await ask(engine, EngineRequest("chat", "comptoir-demo", b"{"))

        assert (caught.value.code, caught.value.fault) == ("invalid_json", "buyer")

    async def test_of_a_kind_the_model_does_not_serve(self, engine: DemoEngine) -> None:
        with pytest.raises(EngineError, match="serves chat and completion, not embedding"):
            await ask(engine, EngineRequest("embedding", "comptoir-demo", b'{"input": "x"}'))

    async def test_of_a_picture(self, engine: DemoEngine) -> None:
        picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]

        with pytest.raises(EngineError) as caught:
            await ask(engine, chat("", messages=[{"role": "user", "content": picture}]))

        assert caught.value.fault == "buyer"


class TestCancellation:
    async def test_closing_the_iterator_frees_the_slot(self) -> None:
        engine = DemoEngine(slots=1)
        await engine.start()
        stream = engine.run(chat("What is Comptoir?", max_tokens=2000, **ENDLESS))
        await anext(stream)

        await stream.aclose()  # type: ignore[attr-defined]

        answer = await asyncio.wait_for(ask(engine, chat("hello")), 5)
        await engine.close()
        assert "demo model" in answer.text

    async def test_a_cancelled_task_stops_its_answer(self, engine: DemoEngine) -> None:
        task = asyncio.create_task(ask(engine, chat("What is Comptoir?", max_tokens=2000, **ENDLESS)))
        await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)

    async def test_closing_the_engine_ends_running_answers(self) -> None:
        engine = DemoEngine(slots=1)
        await engine.start()
        running = [asyncio.create_task(ask(engine, chat("x", max_tokens=2000, **ENDLESS))) for _ in range(3)]
        await asyncio.sleep(0)

        await engine.close()
        await engine.close()

        for task in running:
            with pytest.raises(EngineError) as caught:
                await asyncio.wait_for(task, 5)
            assert caught.value.code == "engine_closed"


class TestConcurrency:
    async def test_answers_do_not_mix(self, engine: DemoEngine) -> None:
        questions = [
            "What is Comptoir?",
            "What is a hold?",
            "Tell me a joke",
            "Send me an emoji",
            "What is a lease?",
        ] * 3
        alone = {question: (await ask(engine, chat(question))).text for question in questions[:5]}

        answers = await asyncio.gather(*(ask(engine, chat(question)) for question in questions))

        assert [answer.text for answer in answers] == [alone[question] for question in questions]

    async def test_the_loop_stays_free(self, engine: DemoEngine) -> None:
        """Some other coroutine gets its turn again and again while answers are made."""
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        answer = await ask(engine, chat("What is Comptoir?"))
        ticking.cancel()

        assert turns > answer.tokens

    async def test_two_engines_live_side_by_side(self, engine: DemoEngine) -> None:
        other = DemoEngine(slots=1)
        await other.start()
        texts = [(await ask(both, chat("hello"))).text for both in (engine, other)]
        await other.close()

        assert texts[0] == texts[1]
        assert (await ask(engine, chat("hello"))).text == texts[0]


class TestEmbeddings:
    @pytest.fixture
    async def embedder(self, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
        """Give the demo model with a pooling type, which is what marks an embedding model."""
        path = with_metadata(MODEL, tmp_path / "embedding.gguf", {"llama.pooling_type": 1})
        engine = LlamaCppEngine(path=path, name="embedder", context_tokens=256, slots=2, threads=1)
        await engine.start()
        yield engine
        await engine.close()

    async def test_one_vector_for_each_text(self, embedder: LlamaCppEngine) -> None:
        (offer,) = await embedder.models()
        answer = await ask(embedder, EngineRequest("embedding", "embedder", b'{"input": ["a host", "a buyer"]}'))

        data = msgspec.json.decode(answer.frames[0].extra)["data"]
        assert offer.kinds == ["embedding"]
        assert [item["index"] for item in data] == [0, 1]
        assert [len(item["embedding"]) for item in data] == [256, 256]
        assert answer.finish.usage.prompt_tokens > 4
        assert answer.tokens == 0

    async def test_base64_when_asked_for(self, embedder: LlamaCppEngine) -> None:
        request = EngineRequest("embedding", "embedder", b'{"input": "a host", "encoding_format": "base64"}')

        (item,) = msgspec.json.decode((await ask(embedder, request)).frames[0].extra)["data"]

        assert isinstance(item["embedding"], str)

    async def test_an_empty_input_is_refused(self, embedder: LlamaCppEngine) -> None:
        with pytest.raises(EngineError, match="input"):
            await ask(embedder, EngineRequest("embedding", "embedder", b'{"input": []}'))


class TestStart:
    async def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        engine = LlamaCppEngine(path=tmp_path / "none.gguf", name="none", context_tokens=64, slots=1, threads=1)

        with pytest.raises(EngineError, match=r"none\.gguf"):
            await engine.start()

    async def test_a_file_without_its_tensors_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "half.gguf"
        path.write_bytes(MODEL.read_bytes()[:1_000_000])
        engine = LlamaCppEngine(path=path, name="half", context_tokens=64, slots=1, threads=1)

        with pytest.raises(EngineError) as caught:
            await engine.start()

        assert caught.value.code == "model_not_loaded"
