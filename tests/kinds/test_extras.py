"""What may stand beside a frame's text, kind by kind: anything else would break somebody else's parser."""

import base64

import pytest

from comptoir.kinds import BadExtra, Chat, Completion, ContainerChain, Embedding, Kind
from comptoir.kinds.extras import EXTRA_DEPTH_MAX
from comptoir.kinds.tokens.extras import TEXT_EXTRA_BYTES_MAX
from tests.kinds.toys import Once

ANY: tuple[tuple[str, bytes], ...] = (
    ("no JSON", b"not json"),
    ("half of it", b'{"delta":'),
    ("two of it", b"{}{}"),
    ("a list", b"[]"),
    ("bytes that are no UTF-8", b'{"a":"\xff"}'),
    ("half a character, escaped", b'{"a":"\\ud800"}'),
    ("half a character, in bytes", b'{"a":"\xed\xa0\x80"}'),
    ("a line end in a string", b'{"a":"\n"}'),
    ("no number", b'{"a":NaN}'),
    ("infinity", b'{"a":-Infinity}'),
    ("a number beyond a float", b'{"a":1e400}'),
    ("an integer beyond a float", b'{"a":[1%b]}' % (b"0" * 400)),
    ("too deep", b'{"a":' + b"[" * EXTRA_DEPTH_MAX + b"]" * EXTRA_DEPTH_MAX + b"}"),
    ("deep, lists in objects", b'{"a":[' * 17 + b"]}" * 17),
    ("deeper than a stack", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("a reason that is none", b'{"finish_reason":7}'),
    ("a reason of megabytes", b'{"finish_reason":"%b"}' % (b"x" * 65)),
)

TEXT: tuple[tuple[str, bytes], ...] = (
    ("a delta that is a list", b'{"delta":[1]}'),
    ("content that is a number", b'{"delta":{"content":7}}'),
    ("reasoning that is a number", b'{"delta":{"reasoning_content":7}}'),
    ("calls that are text", b'{"delta":{"tool_calls":"x"}}'),
    ("a call that is text", b'{"delta":{"tool_calls":["x"]}}'),
    ("a call's place that is text", b'{"delta":{"tool_calls":[{"index":"x"}]}}'),
    ("a function that is text", b'{"delta":{"tool_calls":[{"function":"x"}]}}'),
    ("probabilities that are a list", b'{"logprobs":[]}'),
    ("a choice below 0", b'{"index":-1}'),
    ("a choice that is text", b'{"index":"0"}'),
    ("a choice beyond all", b'{"index":1048576}'),
    ("token ids that are text", b'{"ids":["x"]}'),
    ("too long", b'{"a":"%b"}' % (b"x" * TEXT_EXTRA_BYTES_MAX)),
)

VECTORS: tuple[tuple[str, bytes], ...] = (
    ("no vectors", b"{}"),
    ("vectors that are text", b'{"data":"x"}'),
    ("a vector of text", b'{"data":[{"embedding":["x"]}]}'),
    ("a vector of lists", b'{"data":[{"embedding":[[1]]}]}'),
    ("a number beyond a float", b'{"data":[{"embedding":[1e400]}]}'),
    ("no base64", b'{"data":[{"embedding":"*"}]}'),
    ("half a float", b'{"data":[{"embedding":"%b"}]}' % base64.b64encode(b"abc")),
    ("bytes that are no UTF-8", b'{"data":[],"a":"\xff"}'),
)

PIECES: tuple[tuple[str, bytes], ...] = (("no base64", b'{"base64":"*"}'), ("bytes as a number", b'{"base64":7}'))

REFUSED = [
    *[(kind, what, extra) for kind in (Chat, Completion, ContainerChain, Once) for what, extra in ANY],
    *[(kind, what, extra) for kind in (Chat, Completion) for what, extra in TEXT],
    *[(Embedding, what, extra) for what, extra in (*ANY, *VECTORS)],
    *[(ContainerChain, what, extra) for what, extra in PIECES],
]

TAKEN: tuple[tuple[type[Kind], bytes], ...] = (
    (Chat, b"{}"),
    (Chat, b'{"delta":\r\n {"tool_calls": [{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}}'),
    (Chat, b'{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":1}"}}]},"index":2}'),
    (Chat, b'{"delta":{"function_call":{"name":"f","arguments":"{}"}}}'),
    (Chat, b'{"delta":{"reasoning_content":"Hm","content":[{"type":"text","text":"a"}]}}'),
    (Chat, b'{"logprobs":{"content":[{"token":"a","logprob":-0.10,"bytes":[97],"top_logprobs":[]}]}}'),
    (Chat, b'{"logprobs":{"content":[' + b",".join([b'{"token":"[[","top_logprobs":[{}]}'] * 40) + b"]}}"),
    (Chat, b'{"ids":[1,2],"stop":true,"logprobs":null,"delta":null}'),
    (Chat, b'{"finish_reason":"tool_calls","what_comes_next_year":{"a":[{}]}}'),
    (Completion, b'{"logprobs":{"tokens":["a"],"token_logprobs":[-1e-3],"text_offset":[0]},"index":300}'),
    (Embedding, b'{"data":[]}'),
    (Embedding, b'{"data":[{"object":"embedding","index":0,"embedding":[0.10,-2e-3,1]}]}'),
    (Embedding, b'{"data":[{"embedding":"%b","index":1}]}' % base64.b64encode(bytes(8))),
    (ContainerChain, b'{"finish_reason":"stop"}'),
    (ContainerChain, b'{"base64":"/w=="}'),
    (Once, b'{"anything":[1,{"a":null}]}'),
)  # fmt: skip


class TestCheckExtra:
    @pytest.mark.parametrize(
        ("kind", "extra"), [pytest.param(kind, extra, id=f"{kind.name}: {what}") for kind, what, extra in REFUSED]
    )
    def test_what_a_parser_could_not_take_is_refused(self, kind: type[Kind], extra: bytes) -> None:
        with pytest.raises(BadExtra):
            kind().check_extra(extra)

    @pytest.mark.parametrize(("kind", "extra"), TAKEN)
    def test_what_engines_send_is_taken(self, kind: type[Kind], extra: bytes) -> None:
        kind().check_extra(extra)
