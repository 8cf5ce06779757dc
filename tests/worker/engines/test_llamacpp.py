"""The llamacpp engine on the packaged demo model: real tokens, no torch, no network."""

import time

import msgspec
import pytest
from demo_model.corpus import corpus_sha256

from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.demo import MODEL, DemoEngine
from comptoir.worker.engines.gguf_metadata import read_metadata
from comptoir.worker.engines.llamacpp import LlamaCppEngine
from tests.worker.engines.demo_requests import ENDLESS, JSON_FORMAT, ask, chat, completion


class TestPackagedModel:
    def test_is_at_most_eight_megabytes(self) -> None:
        assert MODEL.stat().st_size <= 8_000_000

    def test_was_trained_from_the_corpus_as_it_is(self) -> None:
        """Fails when the corpus changes without a training: run ``python -m demo_model.train``."""
        assert read_metadata(MODEL)["comptoir.corpus_sha256"] == corpus_sha256()

    async def test_starts_in_less_than_a_second_of_cpu(self) -> None:
        started = time.process_time()
        engine = DemoEngine()
        await engine.start()
        took_s = time.process_time() - started
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

    async def test_the_houses_bound_ends_one_that_names_none(self, engine: DemoEngine) -> None:
        request = msgspec.structs.replace(chat("What is Comptoir?"), max_tokens=5)
        answer = await ask(engine, request)

        assert answer.tokens == 5
        assert (answer.finish.finish_reason, answer.finish.usage.prompt_tokens > 0) == ("length", True)

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

        assert (caught.value.code, caught.value.fault) == ("cannot_continue", "capacity")

    @pytest.mark.parametrize("question", ["What is Comptoir?", "Say hello in Chinese", "Send me an emoji"])
    async def test_it_goes_on_from_another_engines_frames(self, engine: DemoEngine, question: str) -> None:
        """Frames that name no tokens, several in one piece: a server that sends what it has every so often."""
        whole = await ask(engine, chat(question))
        for cut in range(2, len(whole.frames)):
            before = whole.frames[:cut]
            text, tokens = "".join(frame.text for frame in before), sum(frame.tokens for frame in before)
            rest = await ask(engine, chat(question, prefix=[Frame(text, tokens)]))

            assert text + rest.text == whole.text
            assert rest.finish.usage.prompt_tokens == whole.finish.usage.prompt_tokens
            assert rest.finish.usage.completion_tokens == rest.tokens

    async def test_parts_beside_text_are_refused(self, engine: DemoEngine) -> None:
        prefix = [Frame("Two words", 2), Frame("", 1, b'{"delta":{"reasoning_content":"Hm"}}')]

        with pytest.raises(EngineError) as caught:
            await ask(engine, chat("What is Comptoir?", prefix=prefix))

        assert (caught.value.code, caught.value.fault) == ("cannot_continue", "capacity")

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
