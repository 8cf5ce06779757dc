"""Work of any kind, bought over the house API and followed piece by piece."""

from typing import Any

import msgspec

from comptoir.dialects.native.buying import render_frames
from comptoir.link import Frame
from tests.dialects.native.conftest import Caller

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ORDER = {"kind": "chat", "model": "trivial", "body": CHAT, "output_max": 5}


async def buy(core: Caller, **fields: Any) -> tuple[int, Any]:
    return await core.call("POST", "/jobs", body=ORDER | fields)


async def events(core: Caller, job_id: str, **headers: str) -> list[tuple[str, str, Any]]:
    """Return the events of a job's stream: name, number, data."""
    sent = {"authorization": f"Bearer {core.post.buyer_key}"} | headers
    found = []
    async with core._session.get(f"{core.post.url}/house/jobs/{job_id}/frames", headers=sent) as answer:
        assert answer.status == 200, await answer.text()
        for block in (await answer.text()).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields:
                found.append((fields.get("event", ""), fields.get("id", ""), msgspec.json.decode(fields["data"])))
    return found


REFUSED: list[tuple[dict[str, Any], int, str | None]] = [
    ({"kind": "nope"}, 422, "kind"),
    ({"model": "nope"}, 404, None),
    ({"body": [1]}, 422, "body"),
    ({"output_max": None}, 422, "output_max"),
    ({"output_max": 0}, 422, "output_max"),
    ({"kind": "container", "body": {"containers": ["a"], "data": {}}}, 422, "body"),
    ({"kind": "embedding", "output_max": None}, 422, None),
    ({"else": 1}, 422, None),
]


class TestBuy:
    async def test_it_is_streamed_paid_and_receipted(self, core: Caller) -> None:
        status, job = await buy(core)
        assert (status, job["kind"], job["dialect"], job["max_tokens"]) == (201, "chat", "native", 5)

        *pieces, (name, _, end) = await events(core, job["id"])

        assert [number for _, number, _ in pieces] == [str(at) for at in range(len(pieces))]
        assert sum(piece.get("count", 0) for _, _, piece in pieces) == 5
        assert (name, end["state"], end["finish_reason"], end["receipt"]) == (
            "end",
            "completed",
            "length",
            "rcpt" + job["id"][3:],
        )
        assert (await core.get(f"/jobs/{job['id']}"))[1]["cost_uusd"] == end["cost_uusd"] > 0

    async def test_who_comes_again_gets_what_follows(self, core: Caller) -> None:
        _, job = await buy(core)
        whole = await events(core, job["id"])

        assert await events(core, job["id"], **{"last-event-id": "2"}) == whole[3:]

    async def test_a_repeat_under_one_key_buys_once(self, core: Caller) -> None:
        headers = {"idempotency-key": "once"}
        (_, first), (_, second) = [await core.call("POST", "/jobs", body=ORDER, headers=headers) for _ in range(2)]

        assert first["id"] == second["id"]

    async def test_what_can_not_be_bought_is_refused_by_its_field(self, core: Caller) -> None:
        for fields, status, field in REFUSED:
            answer = await buy(core, **fields)

            assert answer[0] == status, (fields, answer)
            assert field is None or answer[1]["error"]["field"] == field, fields
        assert (await core.get("/jobs"))[1]["jobs"] == []

    async def test_what_it_needs_of_a_host_is_asked_of_all_of_them(self, core: Caller) -> None:
        status, answer = await buy(core, needs={"gpu": "H100", "disk_mib": 2**30, "rate_cap": ["token_out:1"]})

        assert status == 422 and all(word in answer["error"]["message"] for word in ("GPU", "disk", "token_out")), (
            answer
        )
        assert (await buy(core, needs={"rate_cap": ["token_out:100000000"]}))[0] == 201

    async def test_anothers_job_is_not_shown(self, core: Caller) -> None:
        _, job = await buy(core)

        assert (await core.get(f"/jobs/{job['id']}/frames", key="stranger"))[0] == 404


class TestRenderFrames:
    def test_what_a_host_sent_beside_the_text_is_shown_where_it_is_json(self) -> None:
        rendered = render_frames([Frame("a", 2, b'{"b":\n1}'), Frame("", 0, b"{no"), Frame("c", 1)], 4, 1)

        assert rendered == (
            b'id: 1.4\ndata: {"text":"a","count":2,"extra":{"b": 1}}\n\n'
            b"id: 1.5\ndata: {}\n\n"
            b'id: 1.6\ndata: {"text":"c","count":1}\n\n'
        )
