"""OpenAI-compatible servers as different projects make them, with a small model that can be known by heart.

The model answers each question of `ANSWERS` with its text, token by token, and goes on wherever the prompt leaves it.
What differs between the servers is what they take and how they build the prompt: see `openai_continue` for where each
was read.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from comptoir.worker.engines.openai_probe import QUESTION
from tests.worker.openai_stand_in import Answer, Request, delta, sse, usage

MODEL = "up/model-7b"
CONTEXT_TOKENS = 4096

ANSWERS = {
    QUESTION: "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen.",
    "plain": "A host that dies in the middle of its answer is replaced by another, and nobody notices.",
    "characters": "Grüße: 你好，世界 🚀🧾 — naïve café\u0301, Привет.",
    "lines": "First line \n\n  - one\n  - two\n\n```\ncode  here\n```\n\nLast line.  ",
    "refrain": "la la la la and again la la la la and again la la la la",
}
UNKNOWN = "I only know what is in my book, and this is not."

_USER, _ASSISTANT, _END = "\x01", "\x02", "\x03"
"""Marks of the chat template; each is one token."""
_TOKEN = re.compile(rf"[{_USER}{_ASSISTANT}{_END}]|\n+|\s?\w{{1,4}}|\s?[^\w\s]|\s", re.ASCII)


def tokens_of(text: str) -> list[str]:
    """Cut text as the model does: its pieces joined are the text."""
    pieces = _TOKEN.findall(text)
    assert "".join(pieces) == text
    return pieces


_VOCABULARY: list[str] = []


def ids_of(text: str) -> list[int]:
    """Return a number for each token of *text*."""
    ids = []
    for token in tokens_of(text):
        if token not in _VOCABULARY:
            _VOCABULARY.append(token)
        ids.append(_VOCABULARY.index(token))
    return ids


def go_on(prompt: str) -> tuple[list[str], bool]:
    """Return the tokens that follow *prompt*, and whether it is a prompt of a chat."""
    if _ASSISTANT not in prompt:
        whole = next((text for text in ANSWERS.values() if text.startswith(prompt)), prompt + UNKNOWN)
        return tokens_of(whole[len(prompt) :]), False
    asked, _, said = prompt.rpartition(_ASSISTANT)
    if said.endswith(_END):
        return tokens_of(UNKNOWN), True
    whole = ANSWERS.get(asked.rpartition(_USER)[2].removesuffix(_END), UNKNOWN)
    # Said as the model says it, or the model is confused: which a test would see.
    return tokens_of(whole[len(said) :] if whole.startswith(said) else "What?"), True


def template(messages: list[dict[str, Any]], *, open_end: bool, trims: bool = True) -> str:
    """Put messages into the chat template; *open_end* leaves the last one open, else the answer's turn begins."""
    prompt = ""
    for place, message in enumerate(messages):
        content = message["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        mark = _ASSISTANT if message["role"] == "assistant" else _USER
        last = place == len(messages) - 1
        prompt += mark + (text.strip() if trims and mark == _ASSISTANT else text)
        prompt += "" if open_end and last else _END
    return prompt if open_end else prompt + _ASSISTANT


class LanguageServer:
    """One server; give `handle` to an `OpenAIStandIn`. Subclasses are the projects."""

    owned_by = "someone"
    echoes = False
    counts_echo = True
    completion_tokens = 16
    """How long a completion is without a bound."""

    def __init__(self) -> None:
        self.chats: list[dict[str, Any]] = []
        self.completions: list[dict[str, Any]] = []

    @property
    def models(self) -> Any:
        return {"data": [{"id": MODEL, "owned_by": self.owned_by, "max_model_len": CONTEXT_TOKENS}]}

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/v1/chat/completions":
            self.chats.append(request.json)
            await self._chat(request.json, answer)
        elif request.path == "/v1/completions":
            self.completions.append(request.json)
            await self._completion(request.json, answer)
        else:
            said = self.other(request.path, request.json if request.body else {})
            await answer.whole(404 if said is None else 200, msgspec.json.encode(said or {"error": "no such path"}))

    def other(self, path: str, body: dict[str, Any]) -> Any:
        """Answer what is not OpenAI's; None: there is no such path."""
        return None

    def left_open(self, body: dict[str, Any]) -> bool:
        """Whether the last message of a chat is gone on with."""
        return False

    def completion_prompt(self, body: dict[str, Any]) -> str:
        prompt = body["prompt"]
        if isinstance(prompt, list):
            return "".join(one if isinstance(one, str) else _VOCABULARY[one] for one in prompt)
        return str(prompt)

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        open_end = self.left_open(body)
        prompt = template(body["messages"], open_end=open_end)
        pieces, _ = go_on(prompt)
        said = body["messages"][-1]["content"].strip() if open_end and self.echoes else ""
        await self._send(body, answer, prompt, pieces, echoed=tokens_of(said), chat=True)

    async def _completion(self, body: dict[str, Any], answer: Answer) -> None:
        prompt = self.completion_prompt(body)
        pieces, _ = go_on(prompt)
        await self._send(body, answer, prompt, pieces, echoed=[], chat=False)

    async def _send(
        self, body: dict[str, Any], answer: Answer, prompt: str, pieces: list[str], *, echoed: list[str], chat: bool
    ) -> None:
        most = (
            body.get("max_tokens")
            or body.get("max_completion_tokens")
            or (CONTEXT_TOKENS if chat else self.completion_tokens)
        )
        said, reason = _bounded(pieces, int(most), body.get("stop"), bool(body.get("include_stop_str_in_output")))
        counted = usage(len(tokens_of(prompt)), len(said) + len(echoed) * self.counts_echo)
        if not body.get("stream"):
            text = "".join(echoed + said)
            choice = {"message": {"content": text}} if chat else {"text": text}
            whole = {"choices": [choice | {"index": 0, "finish_reason": reason}], "usage": counted["usage"]}
            await answer.whole(200, msgspec.json.encode(whole))
            return
        events = [_event(piece, chat) for piece in echoed + said]
        answer.begin_stream()
        await answer.piece(sse(*events, _event("", chat, reason), counted))
        answer.end_stream()


def _event(text: str, chat: bool, reason: str | None = None) -> dict[str, Any]:
    if chat:
        return delta({"content": text} if text else {}, finish_reason=reason)
    return {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def _bounded(pieces: list[str], most: int, stop: Any, keeps_stop: bool) -> tuple[list[str], str]:
    """End *pieces* where a stop string or the bound says; a piece with the beginning of a stop string is cut in two."""
    text = "".join(pieces)
    stops = [stop] if isinstance(stop, str) else stop or []
    found = [(text.index(one), one) for one in stops if one in text]
    end = len(text)
    if found:
        place, one = min(found)
        end = place + len(one) * keeps_stop
    said: list[str] = []
    for piece in pieces:
        if len(said) == most:
            return said, "length"
        left = end - len("".join(said))
        if left <= 0:
            break
        said.append(piece[:left])
    return said, "stop"


class Vllm(LanguageServer):
    """Token ids, and the field for a message that is left open. Its template trims what the assistant said."""

    owned_by = "vllm"
    tokenizes = True

    def left_open(self, body: dict[str, Any]) -> bool:
        return body.get("continue_final_message") is True and body.get("add_generation_prompt") is False

    def other(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/version":
            return {"version": "0.11.0"}
        if path == "/tokenize" and self.tokenizes:
            if "messages" in body:
                text = template(body["messages"], open_end=not body["add_generation_prompt"])
            else:
                text = body["prompt"]
            return {"tokens": ids_of(text), "count": len(ids_of(text)), "max_model_len": CONTEXT_TOKENS}
        return None


class VllmWithoutTokenizer(Vllm):
    """Behind a gateway that lets only OpenAI's paths through."""

    tokenizes = False

    def other(self, path: str, body: dict[str, Any]) -> Any:
        return None


class Sglang(VllmWithoutTokenizer):
    """The field alone."""

    owned_by = "sglang"

    def other(self, path: str, body: dict[str, Any]) -> Any:
        return {"model_path": MODEL} if path == "/get_model_info" else None


class LlamaCpp(LanguageServer):
    """Goes on from an assistant message at the end, unless told not to; its template can be asked."""

    owned_by = "llamacpp"
    prefills = True
    completion_tokens = CONTEXT_TOKENS

    def left_open(self, body: dict[str, Any]) -> bool:
        return self.prefills and body["messages"][-1]["role"] == "assistant"

    def other(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/props":
            return {"build_info": "b6000"}
        if path == "/apply-template":
            return {"prompt": template(body["messages"], open_end=self.left_open(body))}
        if path == "/tokenize":
            return {"tokens": ids_of(body.get("content", ""))}
        return None


class Ollama(LanguageServer):
    """Goes on from an assistant message at the end, whatever field comes along; a completion's prompt goes into the
    template."""

    owned_by = "library"

    def left_open(self, body: dict[str, Any]) -> bool:
        return bool(body["messages"][-1]["role"] == "assistant")

    def completion_prompt(self, body: dict[str, Any]) -> str:
        system = {"role": "system", "content": "You are helpful."}
        return template([system, {"role": "user", "content": body["prompt"]}], open_end=False)

    def other(self, path: str, body: dict[str, Any]) -> Any:
        return {"version": "0.12.3"} if path == "/api/version" else None


class Mistral(LanguageServer):
    """Wants a mark on the message, refuses one without, and says it again."""

    owned_by = "mistralai"
    echoes = True

    def left_open(self, body: dict[str, Any]) -> bool:
        return body["messages"][-1].get("prefix") is True

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        if body["messages"][-1]["role"] == "assistant" and not self.left_open(body):
            await answer.whole(400, b'{"message":"Expected last role User or Tool or Assistant with prefix True"}')
            return
        await super()._chat(body, answer)


class DeepSeek(Mistral):
    """The same mark, and nothing again."""

    owned_by = "deepseek"
    echoes = False


class OpenAI(LanguageServer):
    """Begins a new turn whatever comes last, ignores what it does not know, and has no completions."""

    owned_by = "system"

    async def _completion(self, body: dict[str, Any], answer: Answer) -> None:
        await answer.whole(404, b'{"error":{"message":"not a completion model"}}')


class Strict(OpenAI):
    """Refuses every field it does not know."""

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        if {"continue_final_message", "add_generation_prompt"} & body.keys() or "prefix" in body["messages"][-1]:
            await answer.whole(422, b'{"detail":"extra fields not permitted"}')
            return
        await super()._chat(body, answer)


class StrictPrefill(LanguageServer):
    """Goes on from an assistant message at the end, and refuses every field it does not know (LMDeploy goes on so,
    too)."""

    def left_open(self, body: dict[str, Any]) -> bool:
        return bool(body["messages"][-1]["role"] == "assistant")

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        if {"continue_final_message", "add_generation_prompt"} & body.keys() or "prefix" in body["messages"][-1]:
            await answer.whole(422, b'{"detail":"extra fields not permitted"}')
            return
        await super()._chat(body, answer)


class Thinking(Vllm):
    """Thinks before it says anything."""

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        answer.begin_stream()
        events = [delta({"reasoning_content": "Hm"}), delta({"content": "Yes, it is so."}, finish_reason="stop")]
        await answer.piece(sse(*events))
        answer.end_stream()


class Closing(VllmWithoutTokenizer):
    """Knows the field, but its template closes the message all the same: the answer begins anew."""

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        messages = [one for one in body["messages"] if one["role"] != "assistant"]
        await super()._chat({**body, "messages": messages, "continue_final_message": False}, answer)


GOING_ON: tuple[Callable[[], LanguageServer], ...] = (
    Vllm, VllmWithoutTokenizer, Sglang, LlamaCpp, Ollama, Mistral, DeepSeek, StrictPrefill,
)  # fmt: skip
BEGINNING_ANEW: tuple[Callable[[], LanguageServer], ...] = (OpenAI, Strict, Thinking, Closing)
