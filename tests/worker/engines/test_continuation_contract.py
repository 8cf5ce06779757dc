"""What every engine that offers `can_continue` owes, held at every cut: see `comptoir.worker.engines.base`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from comptoir.link import Frame, Usage
from comptoir.worker.engines.base import Engine, EngineError, EngineRequest, Finish
from comptoir.worker.engines.demo import DemoEngine
from comptoir.worker.engines.openai import OpenAIEngine
from tests.worker.engines.llama_cpp_http import serve_llama_cpp
from tests.worker.language_servers import ANSWERS, GOING_ON, LanguageServer
from tests.worker.openai_stand_in import serve_openai

DEMO_QUESTIONS = ("What is Comptoir?", "Say hello in Chinese", "Send me an emoji", "Write a haiku")
BOOK_QUESTIONS = ("plain", "characters", "lines", "refrain")


class Subject(msgspec.Struct):
    """An engine under the contract, and what it can be asked."""

    engine: Engine
    model: str
    questions: tuple[str, ...]


@asynccontextmanager
async def demo() -> AsyncIterator[Subject]:
    engine = DemoEngine()
    await engine.start()
    yield Subject(engine, "comptoir-demo", DEMO_QUESTIONS)
    await engine.close()


@asynccontextmanager
async def llama_cpp_server() -> AsyncIterator[Subject]:
    with serve_llama_cpp() as (url, key):
        engine = OpenAIEngine(base_url=url, api_key=key)
        await engine.start()
        await engine.detect()
        (model, *_) = await engine.models()
        yield Subject(engine, model.name, DEMO_QUESTIONS)
        await engine.close()


def book(kind: Callable[[], LanguageServer]) -> Callable[[], Any]:
    @asynccontextmanager
    async def server() -> AsyncIterator[Subject]:
        async with serve_openai() as stand_in:
            speaking = kind()
            stand_in.models, stand_in.handler = speaking.models, speaking.handle
            engine = OpenAIEngine(base_url=stand_in.base_url)
            await engine.start()
            await engine.detect()
            yield Subject(engine, "up/model-7b", BOOK_QUESTIONS)
            await engine.close()

    return server


SUBJECTS = {
    "demo": demo,
    "llama.cpp": llama_cpp_server,
    **{kind.__name__: book(kind) for kind in GOING_ON},  # type: ignore[attr-defined]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SUBJECTS, ids=list(SUBJECTS))
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param]() as made:
        yield made


class Said(msgspec.Struct):
    frames: list[Frame]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames)

    @property
    def tokens(self) -> int:
        return sum(frame.tokens for frame in self.frames)


def asked(subject: Subject, question: str, prefix: list[Frame], **fields: Any) -> EngineRequest:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, **fields}
    return EngineRequest("chat", subject.model, msgspec.json.encode(body), tuple(prefix))


async def say(subject: Subject, question: str, prefix: list[Frame] | None = None, **fields: Any) -> Said:
    *frames, finish = [item async for item in subject.engine.run(asked(subject, question, prefix or [], **fields))]
    assert isinstance(finish, Finish)
    assert all(isinstance(frame, Frame) for frame in frames)
    return Said(frames, finish)  # type: ignore[arg-type]


def check_counts(usage: Usage, rest: Said) -> None:
    """Check what a segment counts beside the *usage* of the uninterrupted answer."""
    counted = rest.finish.usage
    assert counted.billed(rest.tokens) == rest.tokens
    assert counted.prompt_tokens == usage.prompt_tokens
    if counted.details:
        details = msgspec.json.decode(counted.details)
        assert details["completion_tokens"] == counted.completion_tokens
        assert details["total_tokens"] == counted.prompt_tokens + counted.completion_tokens


@pytest.mark.asyncio(loop_scope="module")
class TestContract:
    async def test_it_is_offered(self, subject: Subject) -> None:
        offers = {model.name: model for model in await subject.engine.models()}

        assert offers[subject.model].can_continue

    async def test_every_cut_gives_the_uninterrupted_answer_and_counts_its_own_part(self, subject: Subject) -> None:
        """A segment is billed its own tokens and the buyer's prompt, and its frames hold whole characters."""
        for question in subject.questions:
            whole = await say(subject, question)
            for delivered in range(1, len(whole.frames) + 1):
                before = whole.frames[:delivered]
                rest = await say(subject, question, before)

                assert "".join(frame.text for frame in before) + rest.text == whole.text, (question, delivered)
                assert rest.finish.finish_reason == whole.finish.finish_reason
                assert "\ufffd" not in rest.text
                if delivered < len(whole.frames):
                    check_counts(whole.finish.usage, rest)

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    async def test_a_bound_is_for_the_whole_answer(self, subject: Subject, name: str) -> None:
        question = subject.questions[0]
        whole = await say(subject, question, **{name: 9})
        assert (whole.tokens, whole.finish.finish_reason) == (9, "length")

        for delivered in range(1, len(whole.frames) + 1):
            before = whole.frames[:delivered]
            rest = await say(subject, question, before, **{name: 9})
            assert "".join(frame.text for frame in before) + rest.text == whole.text
            assert rest.tokens + sum(frame.tokens for frame in before) <= 9
            assert rest.finish.finish_reason == "length"

    async def test_the_houses_bound_too(self, subject: Subject) -> None:
        question = subject.questions[0]
        whole = await say(subject, question)
        request = msgspec.structs.replace(asked(subject, question, whole.frames[:4]), max_tokens=9)
        *frames, finish = [item async for item in subject.engine.run(request)]

        assert sum(frame.tokens for frame in frames if isinstance(frame, Frame)) == 5
        assert isinstance(finish, Finish) and finish.finish_reason == "length"

    async def test_a_stop_string_holds_across_the_cut(self, subject: Subject) -> None:
        """Whatever part of it had been delivered by then."""
        question = subject.questions[0]
        whole = (await say(subject, question)).frames
        text = "".join(frame.text for frame in whole)
        # From the middle of one token to the middle of another, some tokens on.
        place = len(text) // 2
        stop = text[place : place + 9]
        end = text.index(stop)
        for delivered in range(1, len(whole)):
            said = "".join(frame.text for frame in whole[:delivered])
            if stop in said:
                break
            rest = await say(subject, question, whole[:delivered], stop=[stop])
            assert (said + rest.text)[:end] == text[:end]
            # Nothing is said beyond what was delivered of the stop string itself.
            assert len(said + rest.text) <= max(end, len(said))
            assert rest.finish.finish_reason == "stop"

    @pytest.mark.parametrize(
        ("extra", "fields"),
        [
            (b"", {"n": 2}),
            (b'{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}', {}),
            (b'{"delta":{"reasoning_content":"Hm"}}', {}),
        ],
        ids=["choices", "a tool call", "thinking"],
    )
    async def test_what_it_can_not_go_on_with_it_refuses_before_the_first_frame(
        self, subject: Subject, extra: bytes, fields: dict[str, Any]
    ) -> None:
        prefix = [Frame("Some text", 2), Frame("", 1, extra)]
        run = subject.engine.run(asked(subject, subject.questions[0], prefix, **fields))
        with pytest.raises(EngineError) as raised:
            await anext(run)

        # An engine that never makes several choices says so to the buyer, whose request it is.
        assert (raised.value.code, raised.value.fault) in (
            ("cannot_continue", "capacity"),
            ("unsupported_value", "buyer"),
        )


class TestBook:
    def test_the_answers_differ_at_every_place(self) -> None:
        """So that a lost or doubled piece changes the text; the refrain alone repeats itself."""
        assert len(set(ANSWERS.values())) == len(ANSWERS)
