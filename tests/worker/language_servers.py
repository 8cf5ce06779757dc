"""OpenAI-compatible servers as different projects make them, with a small model that can be known by heart.

The model answers each question of `ANSWERS` with its text, token by token, and goes on wherever the prompt leaves it.
It calls a tool, names the colour of a picture and obeys a schema where its server lets it. What differs between the
servers is what they take, what they say of themselves, and how they build the prompt: see `openai_continue` and
`openai_metadata` for where each was read, and the classes for the rest.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from comptoir.worker.engines.openai_capabilities import COLOURS, TOOL_QUESTION, picture_of
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


Refusal = tuple[int, bytes]


def wanted_of(body: dict[str, Any]) -> str:
    """Return which capability a chat asks for; empty: none."""
    content = body["messages"][-1]["content"]
    if body.get("tools"):
        return "tools"
    if isinstance(content, list) and any(part["type"] == "image_url" for part in content):
        return "vision"
    return "schema" if (body.get("response_format") or {}).get("type") == "json_schema" else ""


def colour_in(body: dict[str, Any]) -> str | None:
    """Return the colour of the picture in a chat; None: it is no picture of one colour."""
    (picture,) = (part.get("image_url") for part in body["messages"][-1]["content"] if part["type"] == "image_url")
    return next((one for one in COLOURS if picture == {"url": f"data:image/png;base64,{picture_of(one)}"}), None)


class LanguageServer:
    """One server; give `handle` to an `OpenAIStandIn`. Subclasses are the projects."""

    owned_by = "someone"
    echoes = False
    counts_echo = True
    completion_tokens = 16
    """How long a completion is without a bound."""
    keeps_stop = False
    """Whether it leaves a stop string in the text."""
    does: frozenset[str] = frozenset()
    """What it can do beyond text. What it neither does nor refuses it does not look at."""
    refuses: Mapping[str, Refusal] = {}
    shy = False
    """Whether the model calls no tool unless it has to."""
    states_context = False
    """Whether its list of models has the context in force."""

    def __init__(self) -> None:
        self.chats: list[dict[str, Any]] = []
        self.completions: list[dict[str, Any]] = []

    @property
    def models(self) -> Any:
        context = {"max_model_len": CONTEXT_TOKENS} if self.states_context else {}
        return {"data": [{"id": MODEL, "object": "model", "owned_by": self.owned_by, **context}]}

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/v1/chat/completions":
            self.chats.append(request.json)
            wanted = wanted_of(request.json)
            if wanted in self.refuses:
                await answer.whole(*self.refuses[wanted])
            elif wanted in self.does and self._is_moved(wanted, request.json):
                await self._beyond_text(wanted, request.json, answer)
            else:
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

    def _is_moved(self, wanted: str, body: dict[str, Any]) -> bool:
        """Whether the model does what is possible: it calls a tool when that is to the point, or when it has to."""
        if wanted == "tools":
            to_the_point = not self.shy and body["messages"][-1]["content"] == TOOL_QUESTION
            return to_the_point or body.get("tool_choice") == "required"
        return wanted == "schema" or colour_in(body) is not None

    async def _beyond_text(self, wanted: str, body: dict[str, Any], answer: Answer) -> None:
        if wanted == "tools":
            called = {"name": body["tools"][0]["function"]["name"], "arguments": '{"word":"tide"}'}
            call = {"index": 0, "id": "call_1", "type": "function", "function": called}
            events = [self.event({"tool_calls": [call]}), self.event({}, reason="tool_calls")]
        else:
            colour = colour_in(body) if wanted == "vision" else None
            said = f"{colour.title()}." if colour else _obedient(body["response_format"])
            events = [self.event({"content": said}), self.event({}, reason="stop")]
        answer.begin_stream()
        await answer.piece(sse(*events, usage(40, 4)))
        answer.end_stream()

    def event(self, fields: dict[str, Any], *, reason: str | None = None) -> dict[str, Any]:
        """Spell one piece of a chat."""
        return delta(fields, finish_reason=reason)

    def plain_event(self, text: str, *, reason: str | None = None) -> dict[str, Any]:
        """Spell one piece of a completion."""
        return {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}

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
        keeps_stop = self.keeps_stop or bool(body.get("include_stop_str_in_output"))
        said, reason = _bounded(pieces, int(most), body.get("stop"), keeps_stop)
        counted = usage(len(tokens_of(prompt)), len(said) + len(echoed) * self.counts_echo)
        if not body.get("stream"):
            text = "".join(echoed + said)
            choice = {"message": {"content": text}} if chat else {"text": text}
            whole = {"choices": [choice | {"index": 0, "finish_reason": reason}], "usage": counted["usage"]}
            await answer.whole(200, msgspec.json.encode(whole))
            return
        pieces = echoed + said
        if chat:
            events = [*(self.event({"content": piece}) for piece in pieces), self.event({}, reason=reason)]
        else:
            events = [*(self.plain_event(piece) for piece in pieces), self.plain_event("", reason=reason)]
        answer.begin_stream()
        await answer.piece(sse(*events, counted))
        answer.end_stream()


def _obedient(response_format: dict[str, Any]) -> str:
    """Return the shortest text that the schema of a request allows."""
    properties = response_format["json_schema"]["schema"]["properties"]
    return msgspec.json.encode({name: one["enum"][0] for name, one in properties.items()}).decode()


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


NO_TOOL_PARSER = (
    b'{"error":{"message":"\\"auto\\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be '
    b'set","type":"BadRequestError","param":null,"code":400}}'
)
NO_IMAGES = b'{"error":{"message":"At most 0 image(s) may be provided in one request.","code":400}}'


class Vllm(LanguageServer):
    """Token ids, and the field for a message that is left open. Its template trims what the assistant said."""

    owned_by = "vllm"
    tokenizes = True
    states_context = True
    does = frozenset(("tools", "vision", "schema"))

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


class VllmWithTextAlone(Vllm):
    """With a text model, and started without a parser of tool calls."""

    does = frozenset(("schema",))
    refuses = {"tools": (400, NO_TOOL_PARSER), "vision": (400, NO_IMAGES)}


class Sglang(VllmWithoutTokenizer):
    """The field alone. It says whether it reads images, and calls tools only when it has to."""

    owned_by = "sglang"
    shy = True

    def other(self, path: str, body: dict[str, Any]) -> Any:
        if path not in ("/model_info", "/get_model_info"):
            return None
        return {"model_path": MODEL, "is_generation": True, "has_image_understanding": True}


class LlamaCpp(LanguageServer):
    """Goes on from an assistant message at the end, unless told not to; its template can be asked.

    Its list has the context that the model was trained for, `/props` that of a slot. This template takes no tools: the
    server drops them without a word, also where one has to be called, and says so in ``chat_template_caps``.
    """

    owned_by = "llamacpp"
    prefills = True
    completion_tokens = CONTEXT_TOKENS
    does = frozenset(("schema",))

    @property
    def models(self) -> Any:
        trained = {"n_ctx_train": 131_072}
        return {"data": [{"id": MODEL, "object": "model", "owned_by": self.owned_by, "meta": trained}]}

    def left_open(self, body: dict[str, Any]) -> bool:
        return self.prefills and body["messages"][-1]["role"] == "assistant"

    def other(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/props":
            return {
                "build_info": "b6000",
                "default_generation_settings": {"n_ctx": CONTEXT_TOKENS},
                "modalities": {"vision": False, "audio": False},
                "chat_template_caps": {"supports_tools": False, "supports_tool_calls": False},
            }
        if path == "/apply-template":
            return {"prompt": template(body["messages"], open_end=self.left_open(body))}
        if path == "/tokenize":
            return {"tokens": ids_of(body.get("content", ""))}
        return None


class Ollama(LanguageServer):
    """Goes on from an assistant message at the end, whatever field comes along; a completion's prompt goes into the
    template. It lists what each model can do, and ignores ``tool_choice``: this one calls no tool when asked to."""

    owned_by = "library"
    does = frozenset(("schema", "vision"))

    def left_open(self, body: dict[str, Any]) -> bool:
        return bool(body["messages"][-1]["role"] == "assistant")

    def completion_prompt(self, body: dict[str, Any]) -> str:
        system = {"role": "system", "content": "You are helpful."}
        return template([system, {"role": "user", "content": body["prompt"]}], open_end=False)

    def other(self, path: str, body: dict[str, Any]) -> Any:
        told = {
            "/api/version": {"version": "0.12.3"},
            "/api/ps": {"models": [{"name": MODEL, "context_length": CONTEXT_TOKENS}]},
            "/api/show": {"parameters": "", "capabilities": ["completion", "vision", "tools"]},
        }
        return told.get(path)


class Tgi(LanguageServer):
    """Goes on from an assistant message at the end, whatever field comes along (pull request 2733).

    Read in huggingface/text-generation-inference, ``router/src/lib.rs`` and ``server.rs``: its list names the model as
    its owner, ``/info`` has the bounds, every delta has a role, answers end with words of its own, and what can't be
    read is refused in plain text. A stop string stays in the text (issue 1724). Schemas are asked for otherwise than at
    OpenAI (issue 3058).
    """

    owned_by = MODEL
    keeps_stop = True
    does = frozenset(("tools",))
    refuses = {
        "schema": (422, b"Failed to deserialize the JSON body into the target type: response_format: missing field `value`"),
    }  # fmt: skip

    def left_open(self, body: dict[str, Any]) -> bool:
        return bool(body["messages"][-1]["role"] == "assistant")

    def event(self, fields: dict[str, Any], *, reason: str | None = None) -> dict[str, Any]:
        said = delta({"role": "assistant", "content": "", **fields}, finish_reason=reason)
        return {**said, "system_fingerprint": "3.3.6-native", "usage": None}

    def plain_event(self, text: str, *, reason: str | None = None) -> dict[str, Any]:
        return super().plain_event(text, reason="eos_token" if reason == "stop" else reason)

    def other(self, path: str, body: dict[str, Any]) -> Any:
        if path != "/info":
            return None
        return {
            "model_id": MODEL, "model_pipeline_tag": "text-generation", "max_input_tokens": CONTEXT_TOKENS - 1,
            "max_total_tokens": CONTEXT_TOKENS, "max_client_batch_size": 4, "router": "text-generation-router",
            "version": "3.3.6",
        }  # fmt: skip


class LmStudio(LanguageServer):
    """Begins a new turn whatever comes last, and takes a completion's prompt as it is.

    Read in lmstudio-ai/docs, ``1_developer/2_rest``: the list of models has all that are downloaded and no context,
    ``/api/v1/models`` (since 0.4) and ``/api/v0/models`` have it for those that are loaded.
    """

    owned_by = "organization_owner"
    does = frozenset(("tools", "schema"))
    old = False
    """Whether it is older than 0.4."""

    def event(self, fields: dict[str, Any], *, reason: str | None = None) -> dict[str, Any]:
        return {**delta(fields, finish_reason=reason), "system_fingerprint": MODEL, "stats": {}}

    def other(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/api/v1/models" and not self.old:
            loaded = {"id": MODEL, "config": {"context_length": CONTEXT_TOKENS, "flash_attention": True}}
            able = {"vision": False, "trained_for_tool_use": True}
            return {
                "models": [
                    {"type": "llm", "key": MODEL, "loaded_instances": [loaded], "max_context_length": 131_072,
                     "format": "gguf", "capabilities": able},
                    {"type": "embedding", "key": "embed", "loaded_instances": [], "max_context_length": 2048},
                ]
            }  # fmt: skip
        if path == "/api/v0/models":
            stated = {"state": "loaded", "max_context_length": 131_072, "loaded_context_length": CONTEXT_TOKENS}
            return {"data": [{"id": MODEL, "type": "llm", "capabilities": ["tool_use"], **stated}]}
        return None


class OlderLmStudio(LmStudio):
    """Before 0.4, with the older of the two lists alone."""

    old = True


class TensorRt(LanguageServer):
    """Begins a new turn whatever comes last, and refuses every field it does not know.

    Read in NVIDIA/TensorRT-LLM, ``tensorrt_llm/serve/openai_protocol.py`` and ``openai_server.py``: the list has only
    names, ``/version`` and ``/health`` nothing of the model, a request may have ``add_generation_prompt`` but no
    ``continue_final_message``, and tool choice is automatic. Its pieces name all that they have not.
    """

    owned_by = "tensorrt_llm"
    does = frozenset(("tools", "schema"))
    refuses = {"vision": (400, b'{"object":"error","message":"This model does not support image input","code":400}')}

    def event(self, fields: dict[str, Any], *, reason: str | None = None) -> dict[str, Any]:
        nothing = {"role": None, "content": None, "reasoning_content": None, "reasoning": None, "tool_calls": None}
        said = delta({**nothing, **fields}, finish_reason=reason, stop_reason=None, avg_decoded_tokens_per_iter=1.0)
        return {**said, "usage": None}

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        if "continue_final_message" in body or "prefix" in body["messages"][-1]:
            said = "[{'type': 'extra_forbidden', 'loc': ('body',), 'msg': 'Extra inputs are not permitted'}]"
            refusal = {"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": 400}
            await answer.whole(400, msgspec.json.encode(refusal))
            return
        await super()._chat(body, answer)

    def other(self, path: str, body: dict[str, Any]) -> Any:
        return {"version": "1.2.0"} if path == "/version" else None


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
        events = [delta({"reasoning": "Hm"}), delta({"content": "Yes, it is so."}, finish_reason="stop")]
        await answer.piece(sse(*events))
        answer.end_stream()


class Closing(VllmWithoutTokenizer):
    """Knows the field, but its template closes the message all the same: the answer begins anew."""

    async def _chat(self, body: dict[str, Any], answer: Answer) -> None:
        messages = [one for one in body["messages"] if one["role"] != "assistant"]
        await super()._chat({**body, "messages": messages, "continue_final_message": False}, answer)


GOING_ON: tuple[Callable[[], LanguageServer], ...] = (
    Vllm, VllmWithoutTokenizer, Sglang, LlamaCpp, Ollama, Tgi, Mistral, DeepSeek, StrictPrefill,
)  # fmt: skip
BEGINNING_ANEW: tuple[Callable[[], LanguageServer], ...] = (
    OpenAI, Strict, Thinking, Closing, LmStudio, OlderLmStudio, TensorRt,
)  # fmt: skip
