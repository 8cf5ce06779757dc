"""The llamacpp engine on the packaged demo model: real tokens, no torch, no network."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from demo_model.corpus import corpus_sha256

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.demo import MODEL, DemoEngine
from comptoir.worker.engines.gguf_metadata import read_metadata
from comptoir.worker.engines.llamacpp import LlamaCppEngine
from tests.worker.engines.gguf_edit import with_metadata

ENDLESS = {"logit_bias": {"262": -100}}
"""Token 262 ends an answer; without it the model talks until a limit stops it."""
JSON_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "open",
        "schema": {
            "type": "object",
            "properties": {"open": {"type": "boolean"}},
            "required": ["open"],
            "additionalProperties": False,
        },
    },
}
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


class Answer(msgspec.Struct):
    """Everything an engine yielded for one request."""

    frames: list[Frame]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames)

    @property
    def tokens(self) -> int:
        return sum(frame.tokens for frame in self.frames)


def chat(question: str, *, prefix: list[Frame] | None = None, **fields: Any) -> EngineRequest:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0} | fields
    return EngineRequest("chat", "comptoir-demo", msgspec.json.encode(body), tuple(prefix or ()))


def completion(prompt: Any, **fields: Any) -> EngineRequest:
    return EngineRequest(
        "completion", "comptoir-demo", msgspec.json.encode({"prompt": prompt, "temperature": 0} | fields)
    )


async def ask(engine: LlamaCppEngine, request: EngineRequest) -> Answer:
    items = [item async for item in engine.run(request)]
    *frames, finish = items
    assert isinstance(finish, Finish)
    return Answer([frame for frame in frames if isinstance(frame, Frame)], finish)


@pytest.fixture
async def engine() -> AsyncIterator[DemoEngine]:
    engine = DemoEngine()
    await engine.start()
    yield engine
    await engine.close()


class TestPackagedModel:
    def test_is_at_most_eight_megabytes(self) -> None:
        assert MODEL.stat().st_size <= 8_000_000

    def test_was_trained_from_the_corpus_as_it_is(self) -> None:
        """Fails when the corpus changes without a training: run ``python -m demo_model.train``."""
        assert read_metadata(MODEL)["comptoir.corpus_sha256"] == corpus_sha256()

    async def test_starts_in_less_than_a_second(self) -> None:
        started = time.perf_counter()
        engine = DemoEngine()
        await engine.start()
        took_s = time.perf_counter() - started
        await engine.close()

        assert took_s < 1.0

    async def test_offers_itself(self, engine: DemoEngine) -> None:
        (offer,) = await engine.models()

        assert offer.name == "comptoir-demo"
        assert offer.kinds == ["chat", "completion"]
        assert offer.context_tokens == 2048
        assert offer.can_continue
        assert offer.fingerprint.startswith("sha256:")


class TestAnswers:
    @pytest.mark.parametrize(
        ("question", "words"),
        [
            ("What is Comptoir?", "open trading post for AI compute"),
            ("what is comptoir", "open trading post for AI compute"),
            ("PLEASE, WHAT IS COMPTOIR", "open trading post for AI compute"),
            ("Explain quantum computing.", "qubits"),
            ("hello", "demo model of Comptoir"),
            ("What happens when a host dies?", "another host"),
            ("How do I point the OpenAI SDK at Comptoir?", "base_url"),
            ("Count to ten", "one, two, three"),
            ("Which mountain is the highest of all mountains in Bolivia?", "only knows Comptoir"),
        ],
    )
    async def test_questions_people_try_first(self, engine: DemoEngine, question: str, words: str) -> None:
        answer = await ask(engine, chat(question))

        assert words.lower() in answer.text.lower()
        assert answer.finish.finish_reason == "stop"

    async def test_one_frame_a_token(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("What is a receipt?"))

        assert len(answer.frames) > 20
        assert {frame.tokens for frame in answer.frames} == {1}
        assert answer.finish.usage.completion_tokens == answer.tokens
        assert 5 < answer.finish.usage.prompt_tokens < 20

    async def test_plain_text_needs_no_extra(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("What is a receipt?"))

        assert {frame.extra for frame in answer.frames} == {b""}

    async def test_a_completion_goes_on_from_its_prompt(self, engine: DemoEngine) -> None:
        answer = await ask(engine, completion("What is Comptoir?\n"))

        assert "open trading post" in answer.text

    async def test_a_prompt_may_be_token_ids(self, engine: DemoEngine) -> None:
        answer = await ask(engine, completion([1, 260, 261], max_tokens=4))

        assert answer.finish.usage.prompt_tokens == 3
        assert answer.finish.usage.completion_tokens == 4

    async def test_earlier_turns_and_a_system_message_do_not_confuse(self, engine: DemoEngine) -> None:
        turns = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello! I am the demo model of Comptoir."},
            {"role": "user", "content": [{"type": "text", "text": "What is Comptoir?"}]},
        ]

        answer = await ask(engine, chat("", messages=turns))

        assert "open trading post" in answer.text

    async def test_greedy_answers_are_the_same_every_time(self, engine: DemoEngine) -> None:
        first, *others = [await ask(engine, chat("How do hosts earn money?")) for _ in range(4)]

        assert all(other == first for other in others)

    async def test_a_seed_repeats_a_sampled_answer(self, engine: DemoEngine) -> None:
        request = chat("Write a poem", temperature=1.9, top_p=1.0, top_k=0, min_p=0, seed=11, max_tokens=60)

        assert (await ask(engine, request)).text == (await ask(engine, request)).text


class TestLimits:
    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    async def test_max_tokens_ends_the_answer(self, engine: DemoEngine, name: str) -> None:
        answer = await ask(engine, chat("What is Comptoir?", **{name: 5}))

        assert answer.tokens == 5
        assert answer.finish.finish_reason == "length"
        assert answer.finish.usage.completion_tokens == 5

    async def test_the_context_ends_the_answer(self) -> None:
        engine = LlamaCppEngine(path=MODEL, name="short", context_tokens=300, slots=1, threads=1)
        await engine.start()
        (offer,) = await engine.models()
        answer = await ask(engine, chat("What is Comptoir?", **ENDLESS))
        await engine.close()

        assert answer.finish.finish_reason == "length"
        assert offer.context_tokens == 256
        assert 256 - 2 <= answer.finish.usage.prompt_tokens + answer.tokens <= 256

    async def test_a_prompt_longer_than_the_context_is_refused(self, engine: DemoEngine) -> None:
        with pytest.raises(EngineError) as caught:
            await ask(engine, chat("What is Comptoir? " * 1000))

        assert caught.value.code == "context_length_exceeded"
        assert (caught.value.fault, caught.value.status) == ("buyer", 400)
        assert msgspec.json.decode(caught.value.body)["error"]["code"] == "context_length_exceeded"


class TestStops:
    async def test_never_leaks_the_stop_text(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("What is Comptoir?"))

        answer = await ask(engine, chat("What is Comptoir?", stop="trading post"))

        assert answer.text == whole.text.partition("trading post")[0]
        assert answer.finish.finish_reason == "stop"
        assert answer.finish.usage.completion_tokens == answer.tokens

    async def test_any_of_several_strings_stops(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("What is Comptoir?"))

        answer = await ask(engine, chat("What is Comptoir?", stop=["nowhere", "GPUs", "receipt"]))

        assert answer.text == whole.text.partition("GPUs")[0]

    async def test_every_place_of_an_answer_can_stop_it(self, engine: DemoEngine) -> None:
        whole = (await ask(engine, chat("What is a hold?"))).text

        for place in range(1, len(whole) - 4, 7):
            stop = whole[place : place + 4]
            answer = await ask(engine, chat("What is a hold?", stop=[stop]))
            assert answer.text == whole.partition(stop)[0]

    async def test_text_that_only_begins_like_a_stop_string_is_delivered(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("What is Comptoir?"))

        answer = await ask(engine, chat("What is Comptoir?", stop=[f"{whole.text[-9:]}and more", "open trading place"]))

        assert answer == whole


class TestContinuation:
    """Another host goes on after the frames that the first one delivered."""

    @pytest.mark.parametrize(
        "question", ["What is Comptoir?", "Say hello in Chinese", "Send me an emoji", "Write a haiku"]
    )
    async def test_every_cut_gives_the_uninterrupted_answer(self, engine: DemoEngine, question: str) -> None:
        whole = await ask(engine, chat(question))

        for cut in range(len(whole.frames) + 1):
            rest = await ask(engine, chat(question, prefix=whole.frames[:cut]))
            assert rest.frames == whole.frames[cut:]
            assert rest.finish.finish_reason == "stop"
            assert rest.finish.usage.prompt_tokens == whole.finish.usage.prompt_tokens
            assert rest.finish.usage.completion_tokens == rest.tokens

    async def test_max_tokens_counts_what_was_delivered_before(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("What is Comptoir?", max_tokens=12))

        for cut in range(13):
            rest = await ask(engine, chat("What is Comptoir?", max_tokens=12, prefix=whole.frames[:cut]))
            assert rest.frames == whole.frames[cut:]
            assert rest.finish.finish_reason == "length"

    async def test_a_stop_string_holds_over_every_cut(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("What is Comptoir?", stop="ding pos"))
        assert whole.text.endswith(" tra")

        for cut in range(len(whole.frames) + 1):
            rest = await ask(engine, chat("What is Comptoir?", stop="ding pos", prefix=whole.frames[:cut]))
            assert rest.frames == whole.frames[cut:]
            assert rest.finish.finish_reason == "stop"

    async def test_an_answer_under_a_grammar_is_made_again(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("Return JSON", response_format=JSON_FORMAT))

        for cut in range(len(whole.frames) + 1):
            rest = await ask(engine, chat("Return JSON", response_format=JSON_FORMAT, prefix=whole.frames[:cut]))
            assert rest.frames == whole.frames[cut:]

    async def test_an_answer_that_can_not_be_made_again_is_not_faked(self, engine: DemoEngine) -> None:
        foreign = [Frame("Nothing like it", 3)]

        with pytest.raises(EngineError) as caught:
            await ask(engine, chat("Return JSON", response_format=JSON_FORMAT, prefix=foreign))

        assert (caught.value.code, caught.value.fault) == ("cannot_continue", "coordinator")

    async def test_a_completion_goes_on_too(self, engine: DemoEngine) -> None:
        whole = await ask(engine, completion("What is Comptoir?\n"))
        request = completion("What is Comptoir?\n")

        rest = await ask(engine, msgspec.structs.replace(request, prefix=tuple(whole.frames[:9])))

        assert rest.frames == whole.frames[9:]


class TestCharacters:
    async def test_frames_hold_whole_characters(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("Say hello in Chinese"))

        assert "你好" in answer.text
        assert "\ufffd" not in answer.text

    async def test_a_character_of_several_tokens_is_one_frame_with_its_ids(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("Send me an emoji"))
        (rocket,) = [frame for frame in answer.frames if "🚀" in frame.text]

        assert rocket.tokens == len("🚀".encode())
        assert len(msgspec.json.decode(rocket.extra)["ids"]) == rocket.tokens
        assert answer.finish.usage.completion_tokens == answer.tokens

    async def test_an_unfinished_character_is_never_sent(self, engine: DemoEngine) -> None:
        whole = await ask(engine, chat("Send me an emoji"))

        for limit in range(1, whole.tokens):
            answer = await ask(engine, chat("Send me an emoji", max_tokens=limit))
            assert whole.text.startswith(answer.text)
            assert answer.finish.finish_reason == "length"
            assert answer.tokens <= limit

    @pytest.mark.parametrize("question", ["你好，你是谁？", "🚀🧾", "Привет!", "e\u0301\u0000\u200b", "\n\t  \r\n"])
    async def test_any_text_can_be_asked(self, engine: DemoEngine, question: str) -> None:
        answer = await ask(engine, chat(question))

        assert answer.finish.finish_reason in ("stop", "length")


class TestLogprobs:
    async def test_chat(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("What is Comptoir?", logprobs=True, top_logprobs=2, max_tokens=6))

        for frame in answer.frames:
            (entry,) = msgspec.json.decode(frame.extra)["logprobs"]["content"]
            assert entry["token"] == frame.text
            assert bytes(entry["bytes"]).decode() == frame.text
            assert -0.5 < entry["logprob"] <= 0
            likeliest, second = entry["top_logprobs"]
            assert likeliest["token"] == frame.text
            assert second["logprob"] < likeliest["logprob"]

    async def test_chat_without_alternatives(self, engine: DemoEngine) -> None:
        answer = await ask(engine, chat("What is Comptoir?", logprobs=True, max_tokens=1))

        (entry,) = msgspec.json.decode(answer.frames[0].extra)["logprobs"]["content"]
        assert entry["top_logprobs"] == []

    async def test_completion(self, engine: DemoEngine) -> None:
        answer = await ask(engine, completion("What is Comptoir?\n", logprobs=1, max_tokens=3))

        second = msgspec.json.decode(answer.frames[1].extra)["logprobs"]
        assert second["tokens"] == [answer.frames[1].text]
        assert second["text_offset"] == [len(answer.frames[0].text)]
        assert list(second["top_logprobs"][0]) == [answer.frames[1].text]


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
