"""Whatever words an engine has for a request beyond its context, the buyer gets OpenAI's error with the numbers."""

from typing import Any

import msgspec
import pytest

from comptoir.worker.engines import openai_wire as wire
from comptoir.worker.engines.base import EngineError, EngineRequest
from comptoir.worker.engines.context_overflow import is_overflow, overflow


def refusal(status: int, body: Any) -> EngineError:
    return wire.refused(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))


def asked(kind: str = "chat", **fields: Any) -> EngineRequest:
    return EngineRequest(kind=kind, model="m", body=msgspec.json.encode({"model": "m", **fields}))


LONG = asked()
BOUNDED = asked(max_tokens=1000)
PROMPT = "your messages resulted in 5000 tokens"
SPLIT = "you requested 5000 tokens (4000 in the messages, 1000 in the completion)"

WORDS = [
    # engine, status, body, request, what is too large, what the message says of it
    (
        "vllm", 400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 "
         "tokens (4000 in the messages, 1000 in the completion). Please reduce the length of the messages or completion.",
         "type": "BadRequestError", "param": None, "code": 400},
        BOUNDED, "max_tokens", SPLIT,
    ),
    (
        "vllm, max_tokens", 400,
        {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context "
         "length is 4096 tokens and your request has 4000 input tokens (1000 > 4096 - 4000).", "code": 400}},
        asked(max_completion_tokens=1000), "max_completion_tokens", SPLIT,
    ),
    (
        "vllm, prompt", 400,
        {"error": {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure "
         "that `max_model_len` is no smaller than the number of text tokens."}},
        LONG, "messages", PROMPT,
    ),
    (
        "vllm, 2026", 400,
        {"error": {"message": "You passed 5000 input tokens and requested 100 output tokens. However, the model's context "
         "length is only 4096 tokens, resulting in a maximum input length of 3996 tokens.", "param": "input_tokens"}},
        asked(max_tokens=100), "messages", PROMPT,
    ),
    (
        "llama.cpp", 400,
        {"error": {"code": 400, "message": "request exceeds the available context size, try increasing it",
         "type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}},
        BOUNDED, "messages", PROMPT,
    ),
    (
        "llama.cpp, embedding", 500,
        {"error": {"code": 500, "message": "input (5000 tokens) is too large to process. increase the physical batch size "
         "(current batch size: 4096)", "type": "server_error"}},
        asked("embedding", input="x"), "input", "your input resulted in 5000 tokens",
    ),
    (
        "TGI", 422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens "
         "and 1000 `max_new_tokens`", "error_type": "validation"},
        BOUNDED, "max_tokens", SPLIT,
    ),
    (
        "TGI, inputs", 422,
        {"error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"},
        asked("completion", prompt="x"), "prompt", "your prompt resulted in 5000 tokens",
    ),
    (
        "SGLang", 400,
        {"object": "error", "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens)."},
        LONG, "messages", PROMPT,
    ),
    (
        "SGLang, both", 400,
        {"message": "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total "
         "of 5000 tokens: 4000 tokens from the input messages and 1000 tokens for the completion."},
        BOUNDED, "max_tokens", SPLIT,
    ),
    ("Ollama", 400, {"error": {"message": "the input length exceeds the context length"}}, LONG, "messages", "exceeds"),
    (
        "LM Studio", 400,
        {"error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context "
         "length of only 4096 tokens, which is not enough."},
        LONG, "messages", PROMPT,
    ),
    (
        "TensorRT-LLM", 400,
        {"message": "The sum of prompt length (5000), query length (0) should not exceed max_num_tokens (4096)"},
        LONG, "messages", PROMPT,
    ),
    (
        "OpenAI", 400,
        {"error": {"message": "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 "
         "tokens.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}},
        LONG, "messages", PROMPT,
    ),
]  # fmt: skip


class TestOverflow:
    @pytest.mark.parametrize(
        ("status", "body", "request_", "param", "said"), [row[1:] for row in WORDS], ids=[row[0] for row in WORDS]
    )
    def test_every_engines_words_are_one_error(
        self, status: int, body: Any, request_: EngineRequest, param: str, said: str
    ) -> None:
        error = refusal(status, body)

        assert is_overflow(error)
        found = overflow(error, request_)
        assert (found.fault, found.status, found.code) == ("buyer", 400, "context_length_exceeded")
        shown = msgspec.json.decode(found.body)["error"]
        assert (shown["param"], shown["type"]) == (param, "invalid_request_error")
        assert shown["code"] == "context_length_exceeded"
        assert said in found.message and shown["message"] == found.message
        assert "5000" not in said or "maximum context length is 4096 tokens" in found.message

    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (400, "temperature must be at most 2"),
            (400, "unknown field max_tokens"),
            (400, "messages: the context of the conversation is missing"),
            (503, "maximum context length is 4096 tokens"),
            (404, "the model does not exist"),
            (500, "CUDA out of memory"),
        ],
    )
    def test_what_is_something_else_stays_so(self, status: int, message: str) -> None:
        assert not is_overflow(refusal(status, {"error": message}))

    def test_numbers_without_end_are_bounded(self) -> None:
        error = refusal(400, {"error": "maximum context length is " + "9" * 5000 + " tokens; resulted in 7 tokens"})

        assert len(overflow(error, LONG).message) < 300
