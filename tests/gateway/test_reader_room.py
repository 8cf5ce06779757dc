"""Readers that never read: what is made for them at once is bounded, for each and in all, streamed and whole."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.gateway import Connections, room_for_answer
from comptoir.jobs import Reader
from comptoir.jobs.reader import BATCH_BYTES_MAX
from comptoir.kit.db.sqlite import SqliteReading
from comptoir.kit.http import PIECE_BYTES, HttpTraffic, Request
from comptoir.link import Frame
from tests.post import Post, open_post
from tests.street import open_street

KIB, MIB = 1 << 10, 1 << 20

TEXT = "x" * 500_000
"""One frame; an answer of 20 is 10 MB, more than the kernel takes for a client on loopback."""

TOKENS = 20


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """A trading post whose readers have 4 MiB, 2 MiB of it from one address, and a host of large frames."""
    async with open_post(tmp_path, readers_bytes_max=4 * MIB, requests_per_minute_per_ip=10_000) as opened:
        await opened.core.ledger.deposit(owner_id=opened.buyer_id, amount_uusd=10**9)
        async with opened.worker(options={"text": TEXT, "tokens": TOKENS}):
            yield opened


def traffic_of(post: Post) -> HttpTraffic:
    return post.core.state(Connections).traffic


def request(post: Post, *, stream: bool) -> bytes:
    body = json.dumps(
        {"model": "trivial", "stream": stream, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "x"}]}
    )
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}authorization: Bearer {post.buyer_key}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def reader_that_never_reads(stack: AsyncExitStack, post: Post, sent: bytes) -> None:
    host, port = post.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    stack.callback(lambda: writer.transport.abort())
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(sent)


async def settled(post: Post, begun: Callable[[], object]) -> None:
    """Wait until *begun*, and then until no host is at work and nothing moves any more."""
    traffic, before = traffic_of(post), (-1, -1)
    async with asyncio.timeout(20):
        while not begun():
            await asyncio.sleep(0.01)
        while before != (now := (queued(post), traffic.readers.held)) or post.core.jobs.live.leased:
            before = now
            await asyncio.sleep(0.1)


def queued(post: Post) -> int:
    """Bytes that wait in this process for readers, beyond what the kernel took."""
    return sum(one.transport.get_write_buffer_size() for one in traffic_of(post)._watched)  # type: ignore[attr-defined]


def cut(post: Post) -> None:
    now_s = asyncio.get_running_loop().time()
    for later_s in (0, 31):
        traffic_of(post).sweep(now_s + later_s)


class TestStreams:
    async def test_many_that_never_read_cost_little_and_are_cut(self, post: Post) -> None:
        """Row 10: 60 of them at an answer of 28 MB were 1.6 GB, and nobody was served for 11.6 s."""
        traffic = traffic_of(post)
        async with AsyncExitStack() as stack:
            for _ in range(6):
                await reader_that_never_reads(stack, post, request(post, stream=True))
            await settled(post, lambda: queued(post))
            assert 0 < queued(post) <= 6 * 2 * PIECE_BYTES
            assert 0 < traffic.readers.held <= traffic.readers.bytes_max
            async with aiohttp.ClientSession(post.url) as session, session.get("/house/keys") as answer:
                assert answer.status == 200

            cut(post)

            async with asyncio.timeout(20):
                while traffic.readers.held:
                    await asyncio.sleep(0.01)
                    cut(post)
        assert traffic.refused["reader_stall_s"] >= 1


class TestWhole:
    async def test_an_answer_waits_until_there_is_room_and_comes_whole(self, post: Post) -> None:
        traffic = traffic_of(post)
        async with AsyncExitStack() as stack:
            await reader_that_never_reads(stack, post, request(post, stream=False))
            await settled(post, lambda: queued(post))
            assert traffic.readers.held == 2 * MIB
            assert 0 < queued(post) <= 2 * PIECE_BYTES
            body = {"model": "trivial", "max_tokens": TOKENS, "messages": [{"role": "user", "content": "x"}]}
            headers = {"authorization": f"Bearer {post.buyer_key}"}
            async with aiohttp.ClientSession(post.url, headers=headers) as session:
                asked = asyncio.ensure_future(_post(session, "/v1/chat/completions", body))
                await settled(post, lambda: traffic.readers._waiting)
                assert not asked.done()

                cut(post)

                answer = await asyncio.wait_for(asked, 20)
        assert answer["choices"][0]["message"]["content"] == TEXT * TOKENS
        assert traffic.readers.held == 0

    async def test_what_is_read_from_the_database_is_shared_and_bounded(self, post: Post) -> None:
        traffic, headers = traffic_of(post), {"authorization": f"Bearer {post.buyer_key}"}
        async with aiohttp.ClientSession(post.url, headers=headers) as session:
            jobs = []
            for _ in range(2):
                bought = await _post(
                    session, "/run/model", {"model": "trivial", "input_text": "x", "max_tokens": TOKENS}
                )
                jobs.append(bought["job_id"])
            await settled(post, lambda: not len(post.core.jobs.live))
            async with AsyncExitStack() as stack:
                head = f"GET /jobs/{jobs[0]}/stream HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {post.buyer_key}\r\n\r\n"
                for _ in range(3):
                    await reader_that_never_reads(stack, post, head.encode())
                await settled(post, lambda: queued(post))
                assert traffic.readers.held <= 4 * MIB

                async with session.get(f"/jobs/{jobs[1]}") as refused:
                    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
                cut(post)
            async with asyncio.timeout(20):
                while traffic.readers.held:
                    cut(post)
                    await asyncio.sleep(0.01)
            async with session.get(f"/jobs/{jobs[1]}") as answer:
                assert (await answer.json())["output_text"] == TEXT * TOKENS


async def _post(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with session.post(path, json=body) as answer:
        found: dict[str, Any] = await answer.json()
        return found


class TestReader:
    @pytest.mark.parametrize(
        ("texts", "batches"),
        [
            (["a"] * 70, [70]),
            (["a" * 5_000] * 7, [3, 3, 1]),
            (["a", "b" * 50_000, "c"], [1, 1, 1]),
            (["b" * 50_000, "c", "d"], [1, 2]),
        ],
        ids=["small ones", "some", "a large one alone", "a large one first"],
    )
    async def test_it_reads_no_more_than_a_batch_at_once(
        self, tmp_path: Path, texts: list[str], batches: list[int]
    ) -> None:
        async with open_street(tmp_path) as street:
            await street.host()
            job = await street.submit()
            job.append([Frame(text) for text in texts])
            reader = Reader(job)

            read = []
            while reader.at < len(texts):
                batch = await reader.next()
                assert batch is not None
                read.append(len(batch))
                alone = len(batch[0].text)
                assert reader.batch_bytes == (alone if alone > BATCH_BYTES_MAX else 0)

        assert read == batches


class TestRoomForAnAnswer:
    async def test_it_is_given_back_whatever_happens_to_the_request(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.host()
            job = await street.submit()
            job.append([Frame(TEXT)])
            asked = Request({"type": "http", "headers": [], "client": ("127.0.0.1", 1)}, None, {})  # type: ignore[arg-type]
            budget = street.core.state(Connections).traffic.readers

            await room_for_answer(street.core, asked, job)
            assert budget.held > len(TEXT)
            asked.answered()  # Without an answer, as where the handler failed.

            assert budget.held == 0


class TestRecalled:
    async def test_an_old_answer_is_read_once_for_all_and_not_in_the_event_loop(
        self, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large row takes SQLite 40 ms, whatever is asked of it, and 28 MB took 150 ms of everybody."""
        store, read = post.core.db._store, list[tuple[str, bool]]()
        inline, aside = store.read, SqliteReading.read

        def noted(reading: SqliteReading, sql: str, params: Any = ()) -> Any:
            if "FROM answers" in sql:
                read.append(("aside", threading.current_thread() is threading.main_thread()))
            return aside(reading, sql, params)

        def point(sql: str, params: Any = ()) -> Any:
            if "FROM answers" in sql:
                read.append(("inline", True))
            return inline(sql, params)

        headers = {"authorization": f"Bearer {post.buyer_key}"}
        async with aiohttp.ClientSession(post.url, headers=headers) as session:
            body = {"model": "trivial", "input_text": "x", "max_tokens": TOKENS}
            job = (await _post(session, "/run/model", body))["job_id"]
            await settled(post, lambda: not len(post.core.jobs.live))
            monkeypatch.setattr(SqliteReading, "read", noted)
            monkeypatch.setattr(store, "read", point)

            async def streamed() -> str:
                async with session.get(f"/jobs/{job}/stream") as stream:
                    return await stream.text()

            texts = await asyncio.gather(*[streamed() for _ in range(5)])

        assert [text.count(TEXT) for text in texts] == [TOKENS] * 5
        assert read == [("aside", False)] * 2
