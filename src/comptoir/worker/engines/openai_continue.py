"""Continuing another host's frames at an OpenAI-compatible server: the request, and where the continuation begins.

Pure: no I/O. `openai_probe` finds out which of the methods below a server supports; this module refuses what can't be
continued (before the first frame, code ``cannot_continue``), rewrites the request, and removes from the answer what was
delivered before.

How servers behave, and the sources:

- vLLM: ``/tokenize`` takes the messages (``add_generation_prompt``) or a text, ``/v1/completions`` takes token ids;
  chat takes ``continue_final_message`` with ``add_generation_prompt: false`` (vllm-project/vllm,
  ``entrypoints/serve/tokenize/protocol.py``; issue 6772). ``echo`` is off by default (issue 19285).
- SGLang: ``continue_final_message`` since sgl-project/sglang pull request 4226.
- TGI: ``continue_final_message`` since huggingface/text-generation-inference pull request 2733.
- llama.cpp's server: an assistant message at the end is continued unless started with ``--no-prefill-assistant``
  (ggml-org/llama.cpp pull requests 13174, 13608), and always with ``continue_final_message`` (23012); thinking models
  refuse it with 400 (issue 21889). Measured with xllamacpp's server: a streamed answer does not repeat the beginning,
  one that is not streamed does. ``/apply-template`` and ``/tokenize`` with ``/v1/completions`` need no flag and trim
  nothing.
- Ollama: an assistant message at the end is continued (ollama/ollama issue 6778), except for models whose template
  closes it; ``/v1/completions`` puts the prompt into the chat template, so it is no plain completion (issues 5544,
  12636).
- Mistral, DeepSeek: ``"prefix": true`` on the last assistant message; Mistral's answers repeat it.
- Chat templates of many models trim white space at the end of the last message (huggingface/transformers pull requests
  34214, 34253, issue 35433). So a text is sent without it, and white space that the server repeats is dropped.
"""

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.link import Frame, Usage
from comptoir.worker.engines.base import EngineError, EngineRequest, cannot_continue


class ContinuationMethod(enum.StrEnum):
    """How an answer is continued, best method first."""

    TOKENS = "prompt token ids"
    """The messages in the server's own template and the delivered text, both as token ids."""
    FINAL = "continue_final_message"
    """The delivered text as the last assistant message, which the server leaves open."""
    PREFIX = "prefix: true"
    """The same with a flag on the message."""
    PREFILL = "assistant prefill"
    """The same without a flag."""
    PLAIN = "plain completion"
    """Prompt and delivered text as one prompt; kind ``completion`` only."""
    AGAIN = "made again"
    """The same request again, if the answer follows a grammar, which can't begin in the middle, and is deterministic
    (temperature 0): what was delivered before is compared and dropped."""


class ProbeResult(msgspec.Struct, frozen=True):
    """A method that was tried and continued the text instead of starting over."""

    method: ContinuationMethod
    echoes: bool = False
    """Whether the server repeats the given text before its continuation."""


class Delivered(msgspec.Struct, frozen=True):
    """What was delivered before."""

    text: str
    tokens: int
    """As counted by the frames; paid to the hosts that made them."""
    sent_tokens: int
    """Tokens of the frames up to the last one that is more than white space."""

    @property
    def sent(self) -> str:
        """Return the text for a chat template: without white space at its end."""
        return self.text.rstrip()


class ContinuationRequest(msgspec.Struct, frozen=True):
    """A request that continues a cut answer, and what to expect at the beginning of the response."""

    fields: dict[str, Any]
    """The request's body, with UNSET for omitted fields; for `ContinuationMethod.TOKENS` the prompt is added later."""
    path: str
    max_tokens: int
    """The hold's bound on what is left; 0: none."""
    repeated: str = ""
    """Text that the server will repeat before it continues; anything else can't be joined."""
    trimmed: str = ""
    """White space that was delivered and not sent: dropped if the server repeats it."""
    stop_rests: tuple[str, ...] = ()
    """The rests of the buyer's stop strings that the delivered text may have begun."""
    keeps_stop: bool = False
    """Whether the buyer wants the stop string itself."""
    forced: int = 0
    """Delivered tokens that the server counts as prompt."""
    prompt_tokens: int = 0
    """Tokens of the buyer's prompt, if counted before; 0: only known from the server's usage."""


_EXTRA_REFUSED = {
    "index": "it has several choices",
    "logprobs": "its tokens' probabilities can't be made again",
    "data": "it is no text",
    "finish_reason": "it has several choices",
}
_GRAMMARS = (
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar", "json_schema",
    "regex", "ebnf", "structural_tag",
)  # fmt: skip
_NOT_FOR_COMPLETIONS = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "max_completion_tokens",
    "logprobs", "top_logprobs", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
    "add_special_tokens", "response_format", "modalities", "n",
)  # fmt: skip
_TEMPLATE_FIELDS = ("chat_template", "chat_template_kwargs", "add_special_tokens")
_ELSEWHERE_IN_TEMPLATE = ("documents", "reasoning_effort", "enable_thinking", "thinking", "mm_processor_kwargs")
"""Fields that change how a chat template renders a request, and that tokenizing endpoints do not accept."""

_MAX_TOKENS = ("max_tokens", "max_completion_tokens")


def read_delivered(prefix: Sequence[Frame]) -> Delivered:
    """Join the delivered frames.

    Raises:
        EngineError: ``cannot_continue``, when something in them can't be forced on a server as text.
    """
    texts: list[str] = []
    tokens = sent_tokens = 0
    for frame in prefix:
        if frame.extra:
            extra = msgspec.json.decode(frame.extra)
            for key, why in _EXTRA_REFUSED.items():
                if key in extra:
                    raise cannot_continue(why)
            delta = extra.get("delta")
            if delta and ("tool_calls" in delta or "function_call" in delta):
                raise cannot_continue("a tool call has begun")
            if delta:
                raise cannot_continue(f"it has parts other than text: {', '.join(sorted(delta))}")
        texts.append(frame.text)
        tokens += frame.tokens
        if frame.text.strip():
            sent_tokens = tokens
    text = "".join(texts)
    if not text:
        raise cannot_continue("tokens were counted, but no text was delivered")
    if text.endswith("\ufffd"):
        # Some servers send one for the bytes of a character that is not complete yet.
        raise cannot_continue("it ends inside of a character")
    return Delivered(text, tokens, sent_tokens)


def ended(prefix: Sequence[Frame], request: EngineRequest) -> str:
    """Return the finish reason of an answer that is complete with its delivered frames; empty otherwise."""
    if prefix[-1].extra and msgspec.json.decode(prefix[-1].extra).get("stop") is True:
        return "stop"
    fields = _decoded(request.body)
    bounds = [_number(fields.get(name)) for name in _MAX_TOKENS] + [request.max_tokens]
    delivered = sum(frame.tokens for frame in prefix)
    return "length" if any(0 < bound <= delivered for bound in bounds) else ""


def join(
    request: EngineRequest, delivered: Delivered, methods: Sequence[ProbeResult]
) -> tuple[ProbeResult, ContinuationRequest]:
    """Choose the best of *ways* for *request*, and return it with the request to send.

    Raises:
        EngineError: ``cannot_continue``: none of them works for it, and why.
    """
    fields = _decoded(request.body)
    _refuse(fields, request.kind)
    if any(fields.get(name) for name in _GRAMMARS) or _wants_format(fields):
        if fields.get("temperature") != 0:
            raise cannot_continue(
                "it follows a grammar, which can't begin in the middle, and is not the likeliest answer"
            )
        path = "/chat/completions" if request.kind == "chat" else "/completions"
        return ProbeResult(ContinuationMethod.AGAIN), ContinuationRequest(
            _raw(request.body), path, request.max_tokens, repeated=delivered.text
        )
    for proven in methods:
        as_message = proven.method in (ContinuationMethod.FINAL, ContinuationMethod.PREFIX, ContinuationMethod.PREFILL)
        if not _takes(proven.method, fields, request.kind):
            continue
        continuation = ContinuationRequest(
            _raw(request.body) | _rest(fields, proven.method, delivered),
            "/chat/completions" if as_message else "/completions",
            max(1, request.max_tokens - delivered.tokens) if request.max_tokens else 0,
            repeated=(delivered.sent if as_message else delivered.text) if proven.echoes else "",
            trimmed=delivered.text[len(delivered.sent) :] if as_message else "",
            stop_rests=_stop_rests(fields, delivered.text),
            keeps_stop=bool(fields.get("include_stop_str_in_output")),
            forced=delivered.sent_tokens if as_message else delivered.tokens,
        )
        return proven, continuation
    raise cannot_continue(f"this server can't take it: {_why_not(fields, request.kind, methods)}")


def template_fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a chat request that go into a server's template."""
    fields = _decoded(body)
    return {name: fields[name] for name in ("messages", *_TEMPLATE_FIELDS) if fields.get(name) is not None}


def body_of(continuation: ContinuationRequest) -> bytes:
    """Return the body to send."""
    return msgspec.json.encode(
        {name: value for name, value in continuation.fields.items() if value is not msgspec.UNSET}
    )


class ContinuationReader:
    """Accepts frames as the server sends them and returns those that follow the cut."""

    def __init__(self, continuation: ContinuationRequest) -> None:
        self._repeated = continuation.repeated
        self._trimmed = continuation.trimmed
        self._straddling = continuation.stop_rests
        self._keeps_stop = continuation.keeps_stop
        self._held: list[Frame] = []
        self._joined = False
        self.dropped_tokens = 0
        """Tokens of frames that had been delivered before."""
        self.given = 0
        """Number of frames returned."""
        self.stopped = False
        """Whether a stop string that began before the cut is complete: nothing follows."""

    def feed(self, frame: Frame) -> list[Frame]:
        """Return the part of *frame* after the cut.

        Raises:
            EngineError: ``cannot_continue``: the server started over, or its text differs from what was delivered.
        """
        if self._joined:
            self.given += 1
            return [frame]
        if self.stopped:
            return []
        if frame.extra:
            _refuse_thinking(frame)
        rest = self._beyond_repeated(frame)
        if rest is not None:
            rest = self._beyond_trimmed(rest)
        if rest is None:
            return []
        ready = self._beyond_stops(rest)
        self._joined = bool(rest.text) and not (self._repeated or self._trimmed or self._straddling or self.stopped)
        self.given += len(ready)
        return ready

    def end(self) -> list[Frame]:
        """Return frames that were still held back when the answer ended.

        Raises:
            EngineError: ``cannot_continue``: it ended before it had repeated everything delivered.
        """
        if self._repeated:
            raise cannot_continue("made again, the answer is shorter than what was delivered")
        held, self._held = self._held, []
        self.given += len(held)
        return held

    def _beyond_repeated(self, frame: Frame) -> Frame | None:
        if not self._repeated:
            return frame
        text = frame.text
        if self._repeated.startswith(text):
            self._repeated = self._repeated[len(text) :]
            self.dropped_tokens += frame.tokens
            return None
        if not text.startswith(self._repeated):
            raise cannot_continue("made again, the answer differs from what was delivered")
        text, self._repeated = text[len(self._repeated) :], ""
        return Frame(text, frame.tokens, frame.extra)

    def _beyond_trimmed(self, frame: Frame) -> Frame | None:
        if not self._trimmed or (not frame.text and frame.extra):
            return frame
        text = frame.text
        same = 0
        while same < min(len(text), len(self._trimmed)) and text[same] == self._trimmed[same]:
            same += 1
        # From the first differing character on, the server's text is new, whatever it omitted.
        self._trimmed = self._trimmed[same:] if same == len(text) else ""
        if same == len(text):
            self.dropped_tokens += frame.tokens
            return None
        return Frame(text[same:], frame.tokens, frame.extra) if same else frame

    def _beyond_stops(self, frame: Frame) -> list[Frame]:
        """Hold frames back while they may complete a stop string that began before the cut."""
        if not self._straddling:
            return [frame]
        self._held.append(frame)
        said = "".join(held.text for held in self._held)
        for rest in self._straddling:
            if said.startswith(rest):
                self.stopped = True
                first = self._held[0]
                self._held = []
                self._straddling = ()
                # The rest of a stop string that the buyer wants to see, for the tokens of its first piece.
                return [Frame(rest, first.tokens, first.extra)] if self._keeps_stop else []
        self._straddling = tuple(rest for rest in self._straddling if rest.startswith(said))
        if self._straddling:
            return []
        held, self._held = self._held, []
        return held


def _refuse_thinking(frame: Frame) -> None:
    delta = msgspec.json.decode(frame.extra).get("delta")
    if delta and any("reasoning" in key or "thinking" in key for key in delta):
        raise cannot_continue("the server started thinking again")


def segment_usage(usage: Usage, *, continuation: ContinuationRequest, dropped: int, given: int) -> Usage:
    """Return the server's counts for this segment alone.

    *dropped* tokens had been delivered before, *given* are those of the segment's own frames. Forced tokens are not
    part of the buyer's prompt, and repeated ones not of the answer.
    """
    if not usage.details:
        return Usage(usage.prompt_tokens, given)
    completion = (
        usage.completion_tokens - dropped if usage.completion_tokens >= given + dropped else usage.completion_tokens
    )
    prompt = max(0, usage.prompt_tokens - continuation.forced)
    details: dict[str, Any] = msgspec.json.decode(usage.details)
    details |= {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return Usage(prompt, completion, msgspec.json.encode(details))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise EngineError("bad_request", f"the request is not OpenAI's shape: {error}", fault="buyer") from error


def _raw(body: bytes) -> dict[str, Any]:
    """Return the raw fields, so that unchanged ones are forwarded byte for byte."""
    return dict(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _refuse(fields: dict[str, Any], kind: str) -> None:
    """Refuse requests whose answer is not a single text that could be continued, whatever the server supports."""
    if kind not in ("chat", "completion"):
        raise cannot_continue("it is no text")
    if _number(fields.get("n")) > 1 or _number(fields.get("best_of")) > 1 or fields.get("use_beam_search"):
        raise cannot_continue("it has several choices")
    if fields.get("logprobs") is not None and fields.get("logprobs") is not False:
        raise cannot_continue("its tokens' probabilities can't be made again")
    if fields.get("echo") or fields.get("suffix"):
        raise cannot_continue("echo and suffix belong to a whole answer")
    if "audio" in (fields.get("modalities") or ()):
        raise cannot_continue("it is not only text")
    choice = fields.get("tool_choice")
    if fields.get("tools") and choice not in (None, "auto", "none"):
        raise cannot_continue("it has to be a tool call, and text was delivered")
    if kind == "completion" and not isinstance(fields.get("prompt"), str):
        raise cannot_continue("its prompt is not one text")
    if kind == "chat":
        messages = fields.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        if not isinstance(last, dict):
            raise EngineError("bad_request", "messages: is required and must not be empty", fault="buyer", status=400)
        if last.get("role") == "assistant":
            raise cannot_continue("the buyer's own messages end with the assistant's")


def _wants_format(fields: dict[str, Any]) -> bool:
    wanted = fields.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") not in (None, "text")


def _takes(method: ContinuationMethod, fields: dict[str, Any], kind: str) -> bool:
    if (method is ContinuationMethod.PLAIN) != (kind == "completion"):
        return False
    if method is not ContinuationMethod.TOKENS:
        return True
    # Only the chat endpoint finds tool calls in the text, and images have no token ids.
    return not _uses_tools(fields) and _only_text(fields) and not any(fields.get(one) for one in _ELSEWHERE_IN_TEMPLATE)


def _uses_tools(fields: dict[str, Any]) -> bool:
    return bool(fields.get("tools")) or bool(fields.get("functions"))


def _only_text(fields: dict[str, Any]) -> bool:
    parts = (message.get("content") for message in fields["messages"] if isinstance(message, dict))
    return all(
        isinstance(one, str) or (isinstance(one, list) and all(_is_text(part) for part in one)) or one is None
        for one in parts
    )


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"


def _rest(fields: dict[str, Any], method: ContinuationMethod, delivered: Delivered) -> dict[str, Any]:
    """Return the fields that differ in the request for the rest of an answer."""
    rest: dict[str, Any] = {}
    for name in (*_MAX_TOKENS, "min_tokens"):
        if _number(fields.get(name)) > 0:
            rest[name] = max(0 if name == "min_tokens" else 1, fields[name] - delivered.tokens)
    if method is ContinuationMethod.PLAIN:
        rest["prompt"] = fields["prompt"] + delivered.text
    elif method is ContinuationMethod.TOKENS:
        bound = rest.get("max_completion_tokens") or rest.get("max_tokens")
        # Omitted when the body is written.
        rest |= dict.fromkeys(_NOT_FOR_COMPLETIONS, msgspec.UNSET)
        rest["max_tokens"] = bound or msgspec.UNSET
    elif delivered.sent:
        last: dict[str, Any] = {"role": "assistant", "content": delivered.sent}
        if method is ContinuationMethod.FINAL:
            rest |= {"continue_final_message": True, "add_generation_prompt": False}
        elif method is ContinuationMethod.PREFIX:
            last["prefix"] = True
        rest["messages"] = [*fields["messages"], last]
    return rest


def _why_not(fields: dict[str, Any], kind: str, methods: Sequence[ProbeResult]) -> str:
    if not any((proven.method is ContinuationMethod.PLAIN) == (kind == "completion") for proven in methods):
        return f"no way to go on with a {kind} was found"
    return "it has tools, images or options that token ids can't carry"


def _stop_rests(fields: dict[str, Any], text: str) -> tuple[str, ...]:
    """Return the rests of stop strings that *text* may end with a beginning of, longest beginning first."""
    stop = fields.get("stop")
    stops = [stop] if isinstance(stop, str) else [one for one in stop or () if isinstance(one, str)]
    begun = [(size, one) for one in stops for size in range(1, len(one)) if text.endswith(one[:size])]
    return tuple(one[size:] for size, one in sorted(begun, reverse=True))
