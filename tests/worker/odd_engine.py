"""An OpenAI-compatible engine that answers as its prompt names it: each of `MANNERS` is something that engines do.

`answer_oddly` is the handler for an `OpenAIStandIn`. The prompt, or the last message, is the name of a manner; it works
for chat and for completions unless the manner says otherwise.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.worker.odd_spelling import Manner, Outcome, Spelling, counts, events
from tests.worker.openai_stand_in import Answer, Request

LONG = "x" * 5_000


def _call(name: str | None = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{**fields, "function": function}]}


def _calls(*deltas: dict[str, Any], finish: str = "tool_calls") -> Callable[[Spelling], bytes]:
    return lambda s: events(s(delta={"role": "assistant"}), *(s(delta=delta) for delta in deltas), s(finish=finish))


_TWO = Outcome(texts=("",), reasons=("tool_calls",), calls=((("weather", '{"a":1}'), ("time", '{"b":2}')),))
_TWICE = Outcome(texts=("",), reasons=("tool_calls",), calls=((("weather", '{"a":1}'), ("weather", '{"b":2}')),))
_ONE = Outcome(texts=("",), reasons=("tool_calls",), calls=((("weather", '{"a":1}'),),))

_BARE = Outcome(texts=("",), reasons=("tool_calls",), calls=((("weather", "{}"),),))


def _tools(deltas: Callable[[Spelling], bytes], outcome: Outcome, n: int = 1) -> Manner:
    return Manner(deltas, outcome, completion=False, n=n)


TOOL_CALLS = {
    "calls without index": _tools(
        _calls(_call("weather", '{"a":1}', id="call_1"), _call("time", '{"b":2}', id="call_2")), _TWO
    ),
    "calls without index, in fragments": _tools(
        _calls(
            _call("weather", "", id="call_1", type="function"),
            _call(None, '{"a"'),
            _call(None, ":1}"),
            _call("time", "", id="call_2", type="function"),
            _call(None, '{"b":2}'),
        ),
        _TWO,
    ),
    "calls without index, by id": _tools(
        _calls(
            _call("weather", "", id="call_1"),
            _call("time", "", id="call_2"),
            _call(None, '{"a":1}', id="call_1"),
            _call(None, '{"b":2}', id="call_2"),
        ),
        _TWO,
    ),
    "calls without index in one delta": _tools(
        _calls(
            {
                "tool_calls": [
                    _call("weather", '{"a":1}', id="call_1")["tool_calls"][0],
                    _call("time", '{"b":2}', id="call_2")["tool_calls"][0],
                ]
            }
        ),
        _TWO,
    ),
    "calls all with index 0": _tools(
        _calls(_call("weather", '{"a":1}', id="call_1", index=0), _call("time", '{"b":2}', id="call_2", index=0)), _TWO
    ),
    "calls all with index 0, in fragments": _tools(
        _calls(
            _call("weather", "", id="call_1", index=0),
            _call(None, '{"a":1}', index=0),
            _call("weather", "", id="call_2", index=0),
            _call(None, '{"b":2}', index=0),
        ),
        _TWICE,
    ),
    "calls with an index that is none": _tools(
        _calls(
            _call("weather", '{"a":1}', id="call_1", index="0"),
            _call("time", '{"b"', id="call_2", index=None),
            _call(None, ":2}", index=-1),
        ),
        _TWO,
    ),
    "calls without index or id": _tools(_calls(_call("weather", '{"a":1}'), _call("weather", '{"b":2}')), _TWICE),
    "calls without index or id, by name": _tools(
        _calls(_call("weather", ""), _call(None, '{"a":1}'), _call("time", ""), _call(None, '{"b":2}')), _TWO
    ),
    "a call that says its name with each fragment": _tools(
        _calls(
            _call("weather", '{"a"', id="call_1", type="function", index=0),
            _call("weather", ":1", id="call_1", type="function", index=0),
            _call("weather", "}", id="call_1", type="function"),
        ),
        _ONE,
    ),
    "a call with another id for each fragment": _tools(
        _calls(
            _call("weather", '{"a"', id="call_1", index=0),
            _call(None, ":1", id="call_2", index=0),
            _call(None, "}", id="call_3", index=0),
        ),
        _ONE,
    ),
    "arguments as an object": _tools(_calls(_call("weather", {"a": 1}, id="call_1", index=0)), _ONE),
    "a call without arguments": _tools(_calls(_call("weather", id="call_1", index=0, type="function")), _BARE),
    "a call with null for arguments": _tools(
        _calls({"tool_calls": [{"id": "call_1", "index": 0, "function": {"name": "weather", "arguments": None}}]}),
        _BARE,
    ),
    "a call with null for id and type": _tools(
        _calls({"tool_calls": [{"id": None, "type": None, "function": {"name": "weather", "arguments": '{"a":1}'}}]}),
        _ONE,
    ),
    "calls of two choices without index": _tools(
        lambda s: events(
            s(delta=_call("weather", "", id="call_1")),
            s(delta=_call("time", "", id="call_2"), index=1),
            s(delta=_call(None, '{"a":1}')),
            s(delta=_call(None, '{"b":2}'), index=1),
            s(index=1, finish="tool_calls"),
            s(finish="tool_calls"),
        ),
        Outcome(
            texts=("", ""),
            reasons=("tool_calls", "tool_calls"),
            calls=((("weather", '{"a":1}'),), (("time", '{"b":2}'),)),
        ),
        2,
    ),
    "calls and an end of its own": _tools(_calls(_call("weather", '{"a":1}', id="call_1"), finish="eos_token"), _ONE),
}

JSON = "application/json"
_WORDS = "eight words in two hundred and some bytes"

WHOLE = {
    "one object": Manner(
        lambda s: s.whole("ab", usage=counts(5, 2)), Outcome(usage=(5, 2)), content_type=JSON
    ),
    "one object said to be a stream": Manner(lambda s: s.whole("ab", usage=counts(5, 2)), Outcome(usage=(5, 2))),
    "one object as text": Manner(
        lambda s: b"\xef\xbb\xbf" + s.whole("ab"), Outcome(), content_type="text/plain; charset=utf-8"
    ),
    "one object after blank lines": Manner(
        lambda s: [b"\n", b"\n \n", *(s.whole("ab")[at : at + 40] for at in range(0, 400, 40))],
        Outcome(),
        content_type=JSON,
    ),
    "one object, two choices": Manner(
        lambda s: s.whole("ab", "cd", finish="length", usage=counts(5, 4)),
        Outcome(texts=("ab", "cd"), reasons=("length", "length"), usage=(5, 4)),
        content_type=JSON,
        n=2,
    ),
    "one object without usage": Manner(
        lambda s: s.whole(_WORDS), Outcome(texts=(_WORDS,), usage=(0, len(_WORDS) // 4)), content_type=JSON
    ),
    "one object, no finish reason": Manner(lambda s: s.whole("ab", finish=None), Outcome(), content_type=JSON),
    "one object with calls": Manner(
        lambda s: s.whole(
            "",
            finish="tool_calls",
            message={
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}},
                    {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": '{"b":2}'}},
                ],
            },
            usage=counts(5, 9),
        ),
        _TWO,
        completion=False,
        content_type=JSON,
    ),
    "one object with everything": Manner(
        lambda s: s.whole(
            "ab", message={"reasoning_content": "hm", "reasoning": None}, system_fingerprint="fp", kv={"a": [1]}
        ),
        Outcome(message={"reasoning_content": "hm", "reasoning": None}, chunk={"system_fingerprint": "fp", "kv": {"a": [1]}}),
        completion=False,
        content_type=JSON,
    ),
    "one object that is an error": Manner(
        lambda s: b'{"error":{"message":"out of memory","code":500}}',
        Outcome(error="upstream_error", words="out of memory"),
        content_type=JSON,
    ),
    "one object that is no answer": Manner(
        lambda s: b'{"choices":[]}', Outcome(error="upstream_protocol"), content_type=JSON
    ),
    "one object cut short": Manner(
        lambda s: s.whole("ab")[:-9], Outcome(error="upstream_protocol"), content_type=JSON
    ),
    "a page": Manner(
        lambda s: b"<html>welcome</html>", Outcome(error="upstream_protocol", words="'text/html'"), content_type="text/html"
    ),
}  # fmt: skip

_NAN = float("nan")
_FACE = "\U0001f600"

TEXTS = {
    "a pair in two halves": Manner(
        lambda s: events(s("a\ud83d"), s("\ude00b"), s(finish="stop")), Outcome(texts=(f"a{_FACE}b",))
    ),
    "a half at the end": Manner(lambda s: events(s("ab\ud83d"), s(finish="stop")), Outcome(texts=("ab\ufffd",))),
    "a half with the end": Manner(lambda s: events(s("ab\ud83d", finish="stop")), Outcome(texts=("ab\ufffd",))),
    "a half before [DONE]": Manner(lambda s: events(s("ab\ud83d")), Outcome(texts=("ab\ufffd",))),
    "a half and other text": Manner(
        lambda s: events(s("a\ud83d"), s("b"), s(finish="stop")), Outcome(texts=("a\ufffdb",))
    ),
    "a second half alone": Manner(
        lambda s: events(s("a"), s("\ude00b"), s(finish="stop")), Outcome(texts=("a\ufffdb",))
    ),
    "halves of two choices": Manner(
        lambda s: events(
            s("a\ud83d"),
            s("c\ud83d", index=1),
            s("\ude00b"),
            s("d", index=1),
            s(index=1, finish="stop"),
            s(finish="stop"),
        ),
        Outcome(texts=(f"a{_FACE}b", "c\ufffdd"), reasons=("stop", "stop")),
        n=2,
    ),
    "a pair in two halves of thoughts and calls": Manner(
        lambda s: events(
            s(delta={"reasoning_content": "h\ud83d"}),
            s(delta={"reasoning_content": "\ude00m"}),
            s("ab"),
            s(delta=_call("weather", '{"a":"\ud83d', id="call_1")),
            s(delta=_call(None, '\ude00"}')),
            s(finish="tool_calls"),
        ),
        Outcome(
            calls=((("weather", f'{{"a":"{_FACE}"}}'),),),
            reasons=("tool_calls",),
            message={"reasoning_content": f"h{_FACE}m"},
        ),
        completion=False,
    ),
    "bytes that are no UTF-8": Manner(
        lambda s: events(s("MARK"), s("b"), s(finish="stop")).replace(b"MARK", b"a\xff"), Outcome(texts=("a\ufffdb",))
    ),
    "a half in one object": Manner(lambda s: s.whole("a\ud83db"), Outcome(texts=("a\ufffdb",)), content_type=JSON),
    "probabilities that are no numbers": Manner(
        lambda s: events(
            s(
                "ab",
                choice={"logprobs": {"content": [{"token": "a\ud83d", "logprob": -float("inf"), "top_logprobs": []}]}},
            ),
            s(finish="stop"),
        ),
        Outcome(choice={"logprobs": {"content": [{"token": "a\ufffd", "logprob": -9999.0, "top_logprobs": []}]}}),
    ),
}


def _counted(prompt: Any, completion: Any, **more: Any) -> Callable[[Spelling], bytes]:
    return lambda s: events(s("a"), s("b"), s(finish="stop"), s.of(usage=counts(prompt, completion, **more)))


USAGE = {
    f"usage {prompt} and {completion}": Manner(_counted(prompt, completion), Outcome(usage=usage))
    for prompt, completion, usage in (
        (_NAN, _NAN, (0, 2)),
        (float("inf"), -float("inf"), (0, 2)),
        (-5, -2, (0, 2)),
        (5, -1, (5, 2)),
        (10**30, 10**30, (0, 2)),
        (5.5, 1.5, (0, 2)),
        (5.0, 2.0, (5, 2)),
        ("5", "2", (0, 2)),
        (None, True, (0, 2)),
        (5, [2], (5, 2)),
    )
} | {
    "usage that is no object": Manner(
        lambda s: events(s("a"), s("b"), s(finish="stop"), s.of(usage="many")), Outcome(usage=(0, 2))
    ),
    "usage with details that are no numbers": Manner(
        _counted(5, 2, details={"a": _NAN, "b": 10**400, "c": "\ud83d"}), Outcome(usage=(5, 2))
    ),
    "usage with every piece": Manner(
        lambda s: events(
            s("a", usage=counts(5, 1)),
            s("b", usage=counts(5, 2)),
            s(finish="stop", usage=counts(5, 2)),
            s.of(usage=None),
        ),
        Outcome(usage=(5, 2)),
    ),
    "usage without choices": Manner(
        lambda s: events(s("a"), s("b"), s(finish="stop"), {"usage": counts(5, 2)}, s.of() | {"choices": None}),
        Outcome(usage=(5, 2)),
    ),
    "one object with usage that is none": Manner(
        lambda s: s.whole("ab", usage=counts(_NAN, 10**30)), Outcome(usage=(0, 1)), content_type=JSON
    ),
}


def _ends(reason: Any) -> Callable[[Spelling], bytes]:
    return lambda s: events(s("a"), s("b"), s(finish=reason))


ENDS = {
    f"ends with {reason}": Manner(_ends(reason), Outcome(reasons=(word,)))
    for reason, word in (
        ("eos", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"), ("end_turn", "stop"), ("STOP", "stop"),
        ("max_tokens", "length"), ("length_capped", "length"), ("model_length", "length"), ("MAX_TOKENS", "length"),
        ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("tool_use", "tool_calls"),
        ("function_call", "function_call"), ("what comes next year", "stop"), (7, "stop"), ({"type": "eos"}, "stop"),
    )
} | {
    f"breaks off with {reason}": Manner(_ends(reason), Outcome(error="upstream_error", words=f"{reason!r}"))
    for reason in ("abort", "error", "cancelled", "insufficient_system_resource")
} | {
    "another choice ends in its own words": Manner(
        lambda s: events(s("ab"), s("cd", index=1), s(index=1, finish="eos"), s(finish="max_length")),
        Outcome(texts=("ab", "cd"), reasons=("length", "stop")),
        n=2,
    ),
    "another choice breaks off": Manner(
        lambda s: events(s("ab"), s("cd", index=1), s(index=1, finish="abort"), s(finish="stop")),
        Outcome(error="upstream_error", words="'abort'"),
        n=2,
    ),
    "one object ends in its own words": Manner(
        lambda s: s.whole("ab", finish="eos_token"), Outcome(), content_type=JSON
    ),
    "one object breaks off": Manner(
        lambda s: s.whole("ab", finish="abort"), Outcome(error="upstream_error", words="'abort'"), content_type=JSON
    ),
    "an end with every piece": Manner(lambda s: events(s("a", finish=""), s("b", finish=""), s(finish="stop")), Outcome()),
    "an end said twice": Manner(
        lambda s: events(s("ab"), s("cd", index=1), s(index=1, finish="length"), s(index=1, finish="stop"), s(finish="stop")),
        Outcome(texts=("ab", "cd"), reasons=("stop", "length")),
        n=2,
    ),
}  # fmt: skip

_FLAGS: dict[str, Any] = {"hate": {"filtered": False}}

BESIDE = {
    "fields of the chunk": Manner(
        lambda s: events(
            s("a", system_fingerprint="fp", seed=7), s("b", system_fingerprint="fp", seed=7), s(finish="stop", timings={"n": 2})
        ),
        Outcome(chunk={"system_fingerprint": "fp", "seed": 7, "timings": {"n": 2}}),
    ),
    "fields of the first chunk": Manner(
        lambda s: events(s(x_groq={"id": "req"}), s("a"), s("b"), s(finish="stop")), Outcome(chunk={"x_groq": {"id": "req"}})
    ),
    "fields of the usage chunk": Manner(
        lambda s: events(s("a"), s("b"), s(finish="stop"), s.of(usage=counts(5, 2), citations=["c"])),
        Outcome(chunk={"citations": ["c"]}, usage=(5, 2)),
    ),
    "fields of a choice": Manner(
        lambda s: events(
            s("a", choice={"token_ids": [1], "flags": _FLAGS}),
            s("b", choice={"token_ids": [2], "flags": _FLAGS}),
            s(finish="stop", choice={"stop_reason": 128001}),
        ),
        Outcome(choice={"token_ids": [1, 2], "flags": _FLAGS, "stop_reason": 128001}),
    ),
    "fields of another choice": Manner(
        lambda s: events(
            s("ab", choice={"seed": 1}), s("cd", index=1, choice={"seed": 2}), s(index=1, finish="stop"), s(finish="stop")
        ),
        Outcome(texts=("ab", "cd"), reasons=("stop", "stop"), choice={"seed": 1}),
        n=2,
    ),
    "fields of the delta": Manner(
        lambda s: events(
            s(delta={"reasoning_details": [{"type": "reasoning.text", "text": "h"}]}),
            s("a", delta={"annotations": [{"a": 1}]}),
            s("b"),
            s(finish="stop"),
        ),
        Outcome(message={"reasoning_details": [{"type": "reasoning.text", "text": "h"}], "annotations": [{"a": 1}]}),
        completion=False,
    ),
    "null beside each text": Manner(
        lambda s: events(
            s(delta={"reasoning": "h", "content": None}),
            s("a", delta={"reasoning": None, "audio": None}),
            s("b", delta={"reasoning": None}),
            s(finish="stop"),
        ),
        Outcome(message={"reasoning": "h"}),
        completion=False,
    ),
    "null that stays null": Manner(
        lambda s: events(s("a", delta={"reasoning_content": None}), s("b", delta={"reasoning_content": None}), s(finish="stop")),
        Outcome(message={"reasoning_content": None}),
        completion=False,
    ),
    "empty that stays empty": Manner(
        lambda s: events(
            s("a", delta={"reasoning_content": "", "reasoning_details": []}),
            s("b", delta={"reasoning_content": "", "reasoning_details": []}),
            s(finish="stop"),
        ),
        Outcome(message={"reasoning_content": "", "reasoning_details": []}, usage=(0, 2)),
        completion=False,
    ),
    "fields of usage": Manner(
        _counted(5, 2, cost=0.5, prompt_tokens_details={"cached_tokens": 4, "of": None}), Outcome(usage=(5, 2))
    ),
    "fields that are called as ours": Manner(
        lambda s: events(s("ab", choice={"delta_": 1, "chunk": 2}, chunk={"id": 3}, ids=[1]), s(finish="stop")),
        Outcome(chunk={"chunk": {"id": 3}, "ids": [1]}, choice={"delta_": 1, "chunk": 2}),
    ),
    "fields too deep to pass on": Manner(
        lambda s: events(s("ab", tree=json.loads("[" * 40 + "]" * 40)), s(finish="stop")), Outcome()
    ),
}  # fmt: skip


def _stream(s: Spelling) -> bytes:
    return events(s("a"), s("b"), s(finish="stop"))


FRAMING = {
    "choices that end at different times": Manner(
        lambda s: events(
            s.of(
                {"index": 0, **({"delta": {"content": "a"}} if s.chat else {"text": "a"})},
                {"index": 1, **({"delta": {"content": "c"}} if s.chat else {"text": "c"})},
            ),
            s(finish="length"),
            s("d", index=1),
            s(index=1, finish="stop"),
            s.of(usage=counts(5, 3)),
        ),
        Outcome(texts=("a", "cd"), reasons=("length", "stop"), usage=(5, 3)),
        n=2,
    ),
    "choices without a number": Manner(
        lambda s: events(s("a", index=None), s("b", index="0"), s(finish="stop")), Outcome()
    ),
    "data without space": Manner(
        lambda s: events(s("a"), s("b"), s(finish="stop"), mark=b"data:"), Outcome()
    ),
    "comments, names, numbers and empty events": Manner(
        lambda s: b"\xef\xbb\xbf: hello\n\nretry: 5\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\ndata:\n\nid: 7\nevent: chunk\n"
        + _stream(s),
        Outcome(),
    ),
    "CRLF": Manner(lambda s: _stream(s).replace(b"\n", b"\r\n"), Outcome()),
    "events that no blank line parts": Manner(
        lambda s: events(s("a"), s("b"), s(finish="stop"), end=b"\n"), Outcome()
    ),
    "one event over several lines": Manner(
        lambda s: b"data: " + json.dumps(s("ab", finish="stop"), indent=1).replace("\n", "\ndata: ").encode() + b"\n\n",
        Outcome(),
    ),
    "one event over several reads": Manner(
        lambda s: [_stream(s)[at : at + 7] for at in range(0, len(_stream(s)), 7)], Outcome()
    ),
    "[DONE] with spaces": Manner(
        lambda s: events(s("ab"), b"[DONE]  ", s("not said"), done=False), Outcome()
    ),
    "no [DONE] after a reason": Manner(lambda s: events(s("ab"), s(finish="length"), done=False), Outcome(reasons=("length",))),
    "no [DONE] after the reasons of all": Manner(
        lambda s: events(s("ab"), s("cd", index=1), s(finish="stop"), s(index=1, finish="stop"), done=False),
        Outcome(texts=("ab", "cd"), reasons=("stop", "stop")),
        n=2,
    ),
    "no [DONE] and no reason": Manner(lambda s: events(s("ab"), done=False), Outcome(error="upstream_cut")),
    "no [DONE] and no reason of another": Manner(
        lambda s: events(s("ab"), s("cd", index=1), s(finish="stop"), done=False), Outcome(error="upstream_cut"), n=2
    ),
    "an error as an event": Manner(
        lambda s: events(s("ab"), b'{"error":{"message":"out of memory","code":500}}'),
        Outcome(error="upstream_error", words="out of memory"),
    ),
    "an error in words": Manner(
        lambda s: events(s("ab"), b'{"error":"out of memory","error_type":"generation"}'),
        Outcome(error="upstream_error", words="out of memory"),
    ),
    "an error with a piece": Manner(
        lambda s: events(s("ab", finish="error", error={"message": "out of memory \ud83d"})),
        Outcome(error="upstream_error", words="out of memory \ufffd"),
    ),
    "an event named error": Manner(
        lambda s: events(s("ab"), done=False) + b'event: error\ndata: {"message":"out of memory"}\n\n',
        Outcome(error="upstream_error", words="out of memory"),
    ),
    "an event named error in plain words": Manner(
        lambda s: events(s("ab"), done=False) + b"event: error\ndata: out of memory\n\n",
        Outcome(error="upstream_error", words="out of memory"),
    ),
    "a field named error": Manner(
        lambda s: events(s("ab"), done=False) + b'error: {"message":"out of memory","code":500}\n\n',
        Outcome(error="upstream_error", words="out of memory"),
    ),
    "an error of many words": Manner(
        lambda s: events(s("ab"), b'{"error":{"message":"%b"}}' % LONG.encode()),
        Outcome(error="upstream_error", words="x" * 400),
    ),
    "an error that is none": Manner(
        lambda s: events(s("a", error=None), s("b", error=""), s(error={}, finish="stop")), Outcome()
    ),
    "rubbish": Manner(lambda s: events(s("ab"), b"<html>"), Outcome(error="upstream_protocol")),
    "brackets without end": Manner(
        lambda s: events(s("ab"), b"[" * 100_000 + b"]" * 100_000), Outcome(error="upstream_protocol")
    ),
}  # fmt: skip

MANNERS: dict[str, Manner] = TOOL_CALLS | WHOLE | TEXTS | USAGE | ENDS | BESIDE | FRAMING


async def answer_oddly(request: Request, answer: Answer) -> None:
    """Answer in the manner that the prompt names."""
    asked = request.json
    chat = request.path.endswith("/chat/completions")
    await answer_in(MANNERS[asked["messages"][-1]["content"] if chat else asked["prompt"]], answer, chat=chat)


async def answer_in(manner: Manner, answer: Answer, *, chat: bool) -> None:
    """Answer in *manner*."""
    body = manner.body(Spelling(chat=chat))
    pieces = body if isinstance(body, list) else [body]
    answer.writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: {manner.content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for piece in pieces:
        if piece:
            await answer.piece(piece)
            await asyncio.sleep(0)
    answer.end_stream()
