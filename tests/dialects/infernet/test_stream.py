"""Streams: the id by itself, then the container's bytes as they are; what breaks off is never a clean end."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from comptoir.dialects.infernet import stream
from comptoir.reports import audit
from tests.dialects.infernet.shop import RUN_UUSD, Node, open_node
from tests.worker.engines.container_stand_in import Answer, after, appends, dies, says, streams

ID_LINE = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n")


async def pieces_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Read as Infernet's own client does: whatever is there."""
    async for piece in answer.content.iter_any():
        yield piece


class HeldSleep:
    """The module asyncio, whose sleep is told and lasts until the test ends it."""

    def __init__(self) -> None:
        self.asked_s: asyncio.Queue[float] = asyncio.Queue()
        self.over = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        self.asked_s.put_nowait(delay)
        await self.over.wait()


class TestBytes:
    async def test_the_id_comes_first_and_alone(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": streams(b"one ", b"two ", b"three")}) as node:
            body = {"containers": ["a"], "data": {"x": 1}}
            async with node.session.post(node.url + "/api/jobs/stream", json=body) as answer:
                pieces = [piece async for piece in pieces_of(answer)]

            assert answer.status == 200
            assert ID_LINE.fullmatch(pieces[0])
            assert b"".join(pieces[1:]) == b"one two three"
            run = node.containers["a"].runs[0].json
            assert run == {"source": 1, "destination": 2, "data": {"x": 1}}

    async def test_nothing_follows_it_before_a_client_has_had_time_to_read_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = HeldSleep()
        monkeypatch.setattr(stream, "asyncio", held)
        monkeypatch.setattr(stream, "ID_ALONE_S", 60.0)
        async with (
            open_node(tmp_path, answers={"a": streams(b"one ", b"two")}) as node,
            node.session.post(node.url + "/api/jobs/stream", json={"containers": ["a"], "data": {}}) as answer,
        ):
            pieces = pieces_of(answer)
            assert ID_LINE.fullmatch(await anext(pieces))

            # The container's first words are here by now, and wait for the rest of the time.
            async with asyncio.timeout(20):
                assert 30.0 < await held.asked_s.get() <= 60.0
            held.over.set()
            assert b"".join([piece async for piece in pieces]) == b"one two"

    async def test_it_comes_before_the_container_has_said_a_word(self, tmp_path: Path) -> None:
        gate = asyncio.Event()
        async with (
            open_node(tmp_path, answers={"a": streams(gate, b"late")}) as node,
            node.session.post(node.url + "/api/jobs/stream", json={"containers": ["a"], "data": {}}) as answer,
        ):
            pieces = pieces_of(answer)
            job = (await anext(pieces)).decode().strip()

            assert (await node.results(job))[0]["status"] == "running"
            gate.set()
            assert await anext(pieces) == b"late"

    @pytest.mark.parametrize(
        "sent",
        [
            [b"\xff\xfe\x00", b"\x80", b"text", b"\xc3"],
            ["grüße".encode()[:3], "grüße".encode()[3:], "\N{SNAKE}".encode()],
            [bytes(range(256)) * 4],
            [b""],
        ],
        ids=["bytes", "characters in two", "all bytes", "nothing"],
    )
    async def test_every_byte_arrives_and_is_kept(self, tmp_path: Path, sent: list[bytes]) -> None:
        whole = b"".join(sent)
        async with open_node(tmp_path, answers={"a": streams(*sent)}) as node:
            said = await node.ask("POST", "/api/jobs/stream", {"containers": ["a"], "data": {}})
            line, _, rest = said.body.partition(b"\n")

            assert rest == whole
            found = await node.result(line.decode())
            try:
                assert found["result"]["output"] == {"output": whole.decode()}
            except UnicodeDecodeError:
                assert list(found["result"]["output"]) == ["output_base64"]

    async def test_no_browser_takes_it_for_a_page(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": streams(b"<script>")}) as node:
            said = await node.ask("POST", "/api/jobs/stream", {"containers": ["a"], "data": {}})

            assert said.headers["content-type"] == "application/octet-stream"
            assert said.headers["x-content-type-options"] == "nosniff"

    async def test_of_a_chain_the_last_container_is_streamed(self, tmp_path: Path) -> None:
        """The real node runs the first container only, and says nothing of the others."""
        answers: dict[str, Answer] = {"a": appends("a"), "b": appends("b"), "c": streams(b"x", b"y")}
        async with open_node(tmp_path, answers=answers) as node:
            said = await node.ask("POST", "/api/jobs/stream", {"containers": ["a", "b", "c"], "data": {}})
            line, _, rest = said.body.partition(b"\n")

            assert rest == b"xy"
            assert node.containers["c"].runs[0].json == {"source": 1, "destination": 2, "data": {"said": ["a", "b"]}}
            found = await node.result(line.decode(), intermediate=True)
            assert found["result"] == {"container": "c", "output": {"output": "xy"}}
            assert [one["container"] for one in found["intermediate_results"]] == ["a", "b"]

    async def test_that_a_proof_is_required_is_passed_on(self, tmp_path: Path) -> None:
        cards = {"a": {"generates_proofs": True}}
        async with open_node(tmp_path, answers={"a": streams(b"x")}, cards=cards) as node:
            await node.ask("POST", "/api/jobs/stream", {"containers": ["a"], "data": {}, "requires_proof": True})

            assert node.containers["a"].runs[0].json["requires_proof"] is True


class TestBrokenOff:
    @pytest.mark.parametrize(
        ("answer", "shown"),
        [
            (streams(b"half", cut=True), b"half"),
            (streams(b"half", length=100), b"half"),
            (says(b'{"error":"boom"}', status=500), b""),
            (dies, b""),
        ],
        ids=["cut", "short", "500", "dies"],
    )
    async def test_the_connection_ends_abnormally_and_the_job_has_failed(
        self, tmp_path: Path, answer: Answer, shown: bytes
    ) -> None:
        """The real node ends such a stream as if it were whole."""
        async with open_node(tmp_path, answers={"a": answer}) as node:
            got: list[bytes] = []
            with pytest.raises(aiohttp.ClientPayloadError):
                await self._read(node, got)

            line, _, rest = b"".join(got).partition(b"\n")
            assert rest == shown
            found = await node.result(line.decode())
            assert (found["status"], found["result"]["container"]) == ("failed", "a")
            assert node.containers["a"].url.rsplit(":", 1)[1] not in found["result"]["error"]

    async def test_that_is_no_error_of_ours(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It is noted in one line; the server behind it would log a bug with its stack for every stream that is cut."""
        async with open_node(tmp_path, answers={"a": dies}) as node:
            with pytest.raises(aiohttp.ClientPayloadError):
                await self._read(node, [])
            assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []

    async def _read(self, node: Node, got: list[bytes]) -> None:
        body = {"containers": ["a"], "data": {}}
        async with node.session.post(node.url + "/api/jobs/stream", json=body) as stream:
            async for piece in pieces_of(stream):
                got += [piece]

    async def test_half_a_stream_costs_nothing(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": streams(b"half", cut=True)}) as node:
            key = node.post.buyer_key
            with pytest.raises(aiohttp.ClientPayloadError):
                await node.ask("POST", "/api/jobs/stream", {"containers": ["a"], "data": {}}, key=key)

            assert (await node.core.ledger.account(node.post.buyer_id)).free_uusd == 1_000_000
            assert await audit(node.core.db) == []

    async def test_hanging_up_stops_the_container_and_pays_its_run(self, tmp_path: Path) -> None:
        never = asyncio.Event()
        async with open_node(tmp_path, answers={"a": streams(b"some", never)}) as node:
            key = {"Authorization": f"Bearer {node.post.buyer_key}"}
            async with node.session.post(
                node.url + "/api/jobs/stream", json={"containers": ["a"], "data": {}}, headers=key
            ) as answer:
                pieces = pieces_of(answer)
                job = (await anext(pieces)).decode().strip()
                assert await anext(pieces) == b"some"

            await asyncio.wait_for(node.containers["a"].runs[0].ended.wait(), 5)
            found = await node.result(job, key=node.post.buyer_key)
            assert (found["status"], found["result"]["container"]) == ("failed", "a")
            assert (await node.core.ledger.account(node.post.buyer_id)).free_uusd == 1_000_000 - RUN_UUSD

    async def test_hanging_up_before_the_last_container_stops_the_one_at_work(self, tmp_path: Path) -> None:
        never = asyncio.Event()
        async with open_node(tmp_path, answers={"a": after(never), "b": streams(b"x")}) as node:
            async with node.session.post(
                node.url + "/api/jobs/stream", json={"containers": ["a", "b"], "data": {}}
            ) as answer:
                job = (await anext(pieces_of(answer))).decode().strip()
                run = await node.containers["a"].came()

            await asyncio.wait_for(run.ended.wait(), 5)
            assert (await node.result(job))["result"] == {"container": "a", "error": "the client hung up"}
            assert node.containers["b"].runs == []


class TestRepeat:
    async def test_under_an_idempotency_key_it_is_followed_again(self, tmp_path: Path) -> None:
        async with open_node(tmp_path, answers={"a": streams(b"once")}) as node:
            body, headers = {"containers": ["a"], "data": {}}, {"Idempotency-Key": "k"}
            said = [await node.ask("POST", "/api/jobs/stream", body, headers=headers) for _ in range(2)]

            assert said[0].body == said[1].body
            assert len(node.containers["a"].runs) == 1

    async def test_what_is_no_longer_in_memory_is_read(self, tmp_path: Path) -> None:
        """An end without what came before it would be a clean one that lies."""
        async with open_node(tmp_path, answers={"a": streams(b"once")}) as node:
            body, headers = {"containers": ["a"], "data": {}}, {"Idempotency-Key": "k"}
            first = await node.ask("POST", "/api/jobs/stream", body, headers=headers)
            node.core.jobs.live.forget_recent(older_than_ms=1 << 60)

            assert (await node.ask("POST", "/api/jobs/stream", body, headers=headers)).body == first.body


class TestRefused:
    async def test_delegated_subscriptions_can_not_be_streamed(self, node: Node) -> None:
        said = await node.ask("POST", "/api/jobs/stream", {"subscription": {}, "signature": {}, "data": {}})

        assert (said.status, said.json) == (405, {"error": "Streaming only supported for OffchainJob requests."})

    async def test_a_job_that_nobody_can_follow_is_not_run(self, tmp_path: Path) -> None:
        never = asyncio.Event()
        async with open_node(tmp_path, answers={"a": streams(b"x", never)}, streams_max=1) as node:
            key = node.post.buyer_key
            body, bearer = {"containers": ["a"], "data": {}}, {"Authorization": f"Bearer {key}"}
            async with node.session.post(node.url + "/api/jobs/stream", json=body, headers=bearer) as first:
                await anext(pieces_of(first))
                said = await node.ask("POST", "/api/jobs/stream", body, key=key)
                assert (said.status, list(said.json)) == (503, ["error"])
                newest = (await node.ask("GET", "/api/jobs?limit=1", key=key)).json[0]
                assert (await node.result(newest, key=key))["status"] == "failed"

    async def test_what_is_refused_has_no_id(self, node: Node) -> None:
        said = await node.ask("POST", "/api/jobs/stream", {"containers": ["x"], "data": {}})

        assert (said.status, said.headers["content-type"]) == (405, "application/json")
        assert (await node.ask("GET", "/api/jobs")).json == []


class TestManyAtOnce:
    async def test_the_id_is_never_glued_to_data(self, tmp_path: Path) -> None:
        """Infernet's client takes the first piece for the id, whatever is in it."""
        async with open_node(tmp_path, answers={"a": streams(b"x" * 100)}, requests_per_minute_per_ip=100_000) as node:
            ids = await asyncio.gather(*[self._first(node) for _ in range(60)])

            assert all(ID_LINE.fullmatch(one) for one in ids)
            assert len({uuid.UUID(one.decode().strip()) for one in ids}) == 60

    async def _first(self, node: Node) -> bytes:
        body = {"containers": ["a"], "data": {}}
        async with node.session.post(node.url + "/api/jobs/stream", json=body) as answer:
            pieces = [piece async for piece in pieces_of(answer)]
            assert b"".join(pieces[1:]) == b"x" * 100
            return pieces[0]
