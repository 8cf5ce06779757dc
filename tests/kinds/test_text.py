"""Text-only hosts get what they can honour, and nothing whose wishes they would have to drop."""

from pathlib import Path

import pytest

from comptoir.dispatch.errors import NoHostPossible
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import POLL
from comptoir.kinds.tokens.text import is_text_only
from tests.street import MODEL, open_street

PLAIN = [
    b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":5,"temperature":0.2}',
    b'{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"n":1,"top_p":1.0,"stop":null,"tools":[]}',
    b'{"prompt":"hi","stream":true,"stream_options":{"include_usage":true},"user":"ada"}',
]
NOT_PLAIN = [
    b'{"messages":[{"role":"user","content":"hi"}],"n":2}',
    b'{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}]}',
    b'{"messages":[{"role":"user","content":"hi"}],"stop":["x"]}',
    b'{"messages":[{"role":"user","content":"hi"}],"seed":7}',
    b'{"messages":[{"role":"user","content":"hi"}],"top_k":40}',
    b'{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_object"}}',
    b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}',
    b'{"input":"embed me"}',
]


class TestIsPlain:
    @pytest.mark.parametrize("body", PLAIN)
    def test_text_length_and_temperature_are(self, body: bytes) -> None:
        assert is_text_only(body)

    @pytest.mark.parametrize("body", NOT_PLAIN)
    def test_whatever_a_text_only_host_would_drop_is_not(self, body: bytes) -> None:
        assert not is_text_only(body)


class TestRouting:
    async def test_a_polling_host_is_not_given_tools(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.host(transport=POLL)

            with pytest.raises(NoHostPossible, match="plain text turns away 1"):
                await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, NOT_PLAIN[1], 5, False))

    async def test_a_worker_is_and_a_polling_host_beside_it_is_not(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            _, polling = await street.host(transport=POLL)
            _, worker = await street.host()

            await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, NOT_PLAIN[0], 5, False))

            assert (len(polling.sent), len(worker.sent)) == (0, 1)

    async def test_one_that_waits_is_not_taken_by_a_polling_host_that_comes_later(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            _, worker = await street.host(slots=1)
            await street.submit()
            waiting = await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, NOT_PLAIN[2], 5, True))

            _, polling = await street.host(transport=POLL)
            await street.core.background.drain_tasks()

            assert polling.sent == []
            assert waiting.lease is None
            assert len(worker.sent) == 1
