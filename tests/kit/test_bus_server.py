"""The bus over Redis Streams: what only a real server can do to it, and how it is found."""

import asyncio
import os
import ssl
import tempfile
from pathlib import Path

import pytest

from comptoir.kit.bus import open_bus, streams
from comptoir.kit.bus.resp import parse_address
from tests.at_once import at_once
from tests.kit.bus_nodes import Ear, RedisWire, nodes
from tests.post import free_port
from tests.redis_server import RedisServer


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisWire:
    return RedisWire(redis_server)


class TestServer:
    """What a real server does to a bus."""

    async def test_a_server_that_hangs_is_noticed_within_a_second(self, redis: RedisWire) -> None:
        async with nodes(redis) as (one, two):
            began = asyncio.get_running_loop().time()
            redis.server.stop_still()
            async with at_once(ms=1500):
                await one.until(lambda: not one.bus.up)
            took_s = asyncio.get_running_loop().time() - began
            redis.server.go_on()
            await one.until(lambda: one.bus.up)
            await two.until(lambda: two.bus.up)
            one.bus.send(two.node_id, b"again")
            await two.until_heard(1)

        assert took_s > 0.5, "a server may be slow for a moment"

    async def test_a_server_that_is_emptied_is_a_gap_and_the_inbox_comes_back(self, redis: RedisWire) -> None:
        async with nodes(redis) as (one, two):
            one.bus.send(two.node_id, b"before")
            await two.until_heard(1)
            redis.server.ask("FLUSHALL")
            one.bus.send(two.node_id, b"lost")
            await two.until(lambda: two.gaps == [one.node_id])
            one.bus.send(two.node_id, b"after")
            await two.until_heard(2)

            assert two.changes == [True]
        assert [data for data in two.order if data != b"(gap)"] == [b"before", b"after"]

    async def test_a_server_that_starts_again_without_its_data_is_a_gap(self, redis: RedisWire) -> None:
        async with nodes(redis) as (one, two):
            one.bus.send(two.node_id, b"before")
            await two.until_heard(1)
            redis.cut()
            redis.mend()

            await two.until(lambda: two.gaps == [one.node_id])
            assert two.changes == [True, False, True]

    async def test_a_trimmed_inbox_is_a_gap(self, redis: RedisWire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "INBOX_ENTRIES_MAX", 100)
        async with nodes(redis) as (one, two):
            one.bus.send(two.node_id, b"first")
            await two.until_heard(1)
            assert two.bus._reading is not None  # type: ignore[attr-defined]
            two.bus._read = lambda: None  # type: ignore[attr-defined]
            one.bus.send(two.node_id, b"read last")
            await two.until_heard(2)
            for number in range(1_000):
                one.bus.send(two.node_id, b"%d" % number)
                await asyncio.sleep(0)
                if number % 50 == 0:
                    await asyncio.sleep(0.002)
            await asyncio.sleep(0.05)
            del two.bus._read  # type: ignore[attr-defined]
            two.bus._read()  # type: ignore[attr-defined]
            await two.until(lambda: two.heard[-1][1] == b"999")

        assert two.order.index(b"(gap)") == 2
        assert 0 < len(two.heard) - 2 < 1_000

    async def test_what_was_read_does_not_stay_at_the_server(self, redis: RedisWire) -> None:
        async with nodes(redis) as (one, two):
            inbox = f"comptoir:test:inbox:{two.node_id.hex()}"
            for number in range(500):
                one.bus.send(two.node_id, b"%d" % number)
                await asyncio.sleep(0)
            await two.until_heard(500)
            async with asyncio.timeout(5):
                while int(redis.server.ask("XLEN", inbox)[1:-2]) > 200:
                    await asyncio.sleep(0.05)

    async def test_an_inbox_ends_with_its_node(self, redis: RedisWire) -> None:
        async with nodes(redis) as (one, two):
            inbox = f"comptoir:test:inbox:{two.node_id.hex()}"
            assert 0 < int(redis.server.ask("TTL", inbox)[1:-2]) <= 10
            await two.bus.close()
            one.bus.send(two.node_id, b"to nobody")
            await one.bus.close()

            assert redis.server.ask("DBSIZE") == b":0\r\n"

    async def test_posts_on_one_server_never_meet(self, redis: RedisWire) -> None:
        node_id, other_id = os.urandom(16), os.urandom(16)
        here = Ear(redis.bus(node_id, post="here"), node_id)
        there = Ear(redis.bus(node_id, post="there"), node_id)
        sender = Ear(redis.bus(other_id, post="here"), other_id)
        for ear in (here, there, sender):
            await ear.start()
        sender.bus.send(node_id, b"hello")
        await here.until_heard(1)
        for ear in (here, there, sender):
            await ear.bus.close()

        assert there.heard == []

    async def test_what_was_under_way_when_the_line_broke_is_told_though_nothing_more_is_said(
        self, redis: RedisWire
    ) -> None:
        async with nodes(redis) as (one, two):
            one.bus.send(two.node_id, b"before")
            await two.until_heard(1)
            line = one.bus._writing  # type: ignore[attr-defined]
            line.send = lambda data, answers: None
            one.bus.send(two.node_id, b"lost on the way")
            await asyncio.sleep(0)
            line.end("cut")

            await two.until(lambda: two.gaps == [one.node_id])
            assert one.changes == [True, False, True]
            assert two.changes == [True]

    async def test_repeats_are_dropped(self, redis: RedisWire) -> None:
        """A server that hung may run commands of a connection that was given up, beside those of the new one."""
        async with nodes(redis) as (one, two):
            one.bus.send(two.node_id, b"once")
            await two.until_heard(1)
            peer = one.bus._peers[two.node_id]  # type: ignore[attr-defined]
            peer.next -= 1
            one.bus.send(two.node_id, b"once")
            one.bus.send(two.node_id, b"more")
            await two.until_heard(2)

        assert two.order == [b"once", b"more"]

    async def test_a_stranger_in_the_inbox_stops_nothing(
        self, redis: RedisWire, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with nodes(redis) as (one, two):
            inbox = f"comptoir:test:inbox:{two.node_id.hex()}"
            redis.server.ask("XADD", inbox, "*", "e", "what is this?")
            one.bus.send(two.node_id, b"hello")

            assert await two.until_heard(1) == [b"hello"]
        assert "what no coordinator wrote" in caplog.text

    async def test_a_full_server_is_down_not_silent(self, redis: RedisWire) -> None:
        async with nodes(redis) as (one, two):
            redis.server.ask("CONFIG", "SET", "maxmemory", "1")
            one.bus.send(two.node_id, b"refused")
            await one.until(lambda: not one.bus.up)
            redis.server.ask("CONFIG", "SET", "maxmemory", "0")
            await one.until(lambda: one.bus.up)
            await two.until(lambda: two.bus.up and bool(two.gaps))

    async def test_begins_without_a_server_and_finds_it_later(self, redis: RedisWire) -> None:
        redis.cut()
        async with nodes(redis) as (one, two):
            assert not one.bus.up
            one.bus.send(two.node_id, b"into the void")
            redis.mend()
            await one.until(lambda: one.bus.up)
            await two.until(lambda: two.bus.up)
            await two.until(lambda: bool(two.gaps))
            one.bus.send(two.node_id, b"hello")

            assert await two.until_heard(1) == [b"hello"]

    async def test_gets_in_with_user_password_and_database_over_a_port(self) -> None:
        with tempfile.TemporaryDirectory(prefix="comptoir-redis-") as folder:
            port = free_port()
            server = RedisServer(
                Path(folder), port=port, options=("--user", "comptoir", "on", ">p@ss:w/rd", "~comptoir:*", "+@all")
            )
            server.start()
            try:
                node_id = os.urandom(16)
                url = f"valkey://comptoir:p%40ss%3Aw%2Frd@127.0.0.1:{port}/3"
                ear = Ear(open_bus(url, node_id, post="test"), node_id)
                await ear.start()
                ear.bus.send(node_id, b"to myself")
                assert await ear.until_heard(1) == [b"to myself"]
                assert b"db3" in server.ask("INFO", "keyspace")
                await ear.bus.close()
            finally:
                server.kill()

    async def test_a_wrong_password_is_down_and_said(self, redis: RedisWire, caplog: pytest.LogCaptureFixture) -> None:
        node_id = os.urandom(16)
        url = redis.server.url.replace("unix://", "unix://somebody:hunter22@")
        ear = Ear(open_bus(url, node_id, post="test"), node_id)
        await ear.start()
        await ear.bus.close()

        assert not ear.bus.up
        assert "WRONGPASS" in caplog.text
        assert "hunter22" not in caplog.text


class TestAddress:
    def test_reads_every_form(self) -> None:
        plain = parse_address("redis://shop.example")
        assert (plain.host, plain.port, plain.tls, plain.greeting) == ("shop.example", 6379, None, ())
        secure = parse_address("rediss://:secret@shop.example:7000/2")
        assert isinstance(secure.tls, ssl.SSLContext)
        assert secure.greeting == (b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n", b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n")
        assert "secret" not in repr(secure)
        local = parse_address("unix:///run/redis%20one.sock?db=4")
        assert (local.path, local.greeting) == ("/run/redis one.sock", (b"*2\r\n$6\r\nSELECT\r\n$1\r\n4\r\n",))
        assert parse_address("valkey://[::1]:7000").host == "::1"

    @pytest.mark.parametrize(
        "address",
        [
            "http://:secret@shop",
            "redis://:secret@shop/one",
            "redis://:secret@shop?db=1",
            "unix://:secret@",
            "secret",
            "redis://:secret@shop:99999",
            "redis://:secret@shop#here",
        ],
    )
    def test_refuses_what_is_malformed_without_repeating_it(self, address: str) -> None:
        with pytest.raises(ValueError) as refused:
            open_bus(address, bytes(16), post="test")

        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize(("node_id", "post"), [(b"short", "test"), (bytes(16), ""), (bytes(16), "a:b")])
    def test_refuses_a_node_or_a_post_that_could_meet_another(self, node_id: bytes, post: str) -> None:
        with pytest.raises(ValueError):
            open_bus("redis://localhost", node_id, post=post)
