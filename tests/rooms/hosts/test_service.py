"""Registering, remembering and checking hosts, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from comptoir.hosts import (
    ACTIVE,
    DONE,
    INFRINTIA,
    LINK,
    LOST,
    OFFLINE,
    POLL,
    PUSH,
    TABLES,
    Fleet,
    Hosts,
    NewHost,
    UnknownHost,
    check_host,
    insert_host,
    offers_of,
)
from comptoir.hosts.reputation import MERIT_UUSD
from comptoir.hosts.service import FLUSH_ROWS_MAX
from comptoir.hosts.testing import make_new_host, make_offer, make_row
from comptoir.kinds import Kinds
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Rows, Tx
from comptoir.kit.errors import InvalidField, Unavailable
from comptoir.kit.urlguard import UrlGuard
from tests.conftest import MakeDatabase


class Away(Database):
    """A database that can't be reached."""

    def __init__(self) -> None:
        pass

    def run(self, command: Callable[[Tx], Any], *, locks: Rows = ()) -> "asyncio.Future[Any]":
        raise Unavailable("away")


Restart = Callable[[], Hosts]


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
def restart(database: Database) -> Restart:
    """Give a call that makes the room anew over the same database, as after a start."""
    clock = FakeClock()
    return lambda: Hosts(database, clock, Fleet(clock), UrlGuard())


class TestRegister:
    async def test_stores_the_host_and_lets_it_work(self, restart: Restart) -> None:
        hosts = restart()
        new = make_new_host(
            models=(make_offer(name="é/ü", price_in=3, text_only=True),), owner_id=b"o" * 16, public_key=b"k" * 32
        )

        host = await hosts.register(new)

        assert host.status == ACTIVE
        again = restart()
        assert await again.load() == 1
        row = again.fleet.get(host.id).row
        assert (row.gpu, row.models, row.owner_id, row.public_key) == (new.gpu, new.models, b"o" * 16, b"k" * 32)
        assert row.last_seen_ms == 0 and again.fleet.get(host.id).status == OFFLINE

    async def test_a_host_with_a_link_waits_for_it(self, restart: Restart) -> None:
        assert (await restart().register(make_new_host(transport=LINK))).status == OFFLINE

    async def test_a_refused_host_is_nowhere(self, restart: Restart, database: Database) -> None:
        hosts = restart()
        with pytest.raises(InvalidField):
            await hosts.register(make_new_host(gpu=""))

        assert len(hosts.fleet) == 0 and await database.fetch("SELECT count(*) FROM hosts") == [(0,)]


class TestSpeaks:
    """What a host without a link speaks decides whether its offer is text only; so does nothing, which is the published
    API."""

    @pytest.mark.parametrize(
        ("transport", "speaks", "stored", "text_only"),
        [
            (LINK, None, None, False),
            (POLL, None, INFRINTIA, True),
            (PUSH, INFRINTIA, INFRINTIA, True),
            (POLL, "native", "native", False),
            (PUSH, "another", "another", False),
        ],
    )
    async def test_is_said_by_the_registration(
        self, restart: Restart, transport: str, speaks: str | None, stored: str | None, text_only: bool
    ) -> None:
        url = "https://host.example/run" if transport == PUSH else None
        host = await restart().register(make_new_host(transport=transport, speaks=speaks, endpoint_url=url))

        again = restart()
        await again.load()
        kept = again.fleet.get(host.id)

        assert (
            (kept.row.speaks, kept.row.models)
            == (stored, (make_offer(text_only=text_only),))
            == (host.row.speaks, host.row.models)
        )
        assert (kept.candidates["m"].text_only, again.fleet.limited.text_only) == (text_only, int(text_only))

    @pytest.mark.parametrize(("transport", "speaks"), [(LINK, None), (POLL, INFRINTIA), (PUSH, INFRINTIA)])
    async def test_a_row_of_the_version_before_is_read_as_it_was_meant(
        self, restart: Restart, database: Database, transport: str, speaks: str | None
    ) -> None:
        """It has no such column, and offers of eight fields."""
        url = "https://host.example/run" if transport == PUSH else None
        host = await restart().register(make_new_host(transport=transport, endpoint_url=url))
        old = b'[["m",["chat"],4096,0,1000000,false,"",null]]'
        await database.run(lambda tx: tx.execute("UPDATE hosts SET speaks = NULL, models = ?", [old]))

        again = restart()
        await again.load()

        row = again.fleet.get(host.id).row
        assert (row.speaks, [offer.text_only for offer in row.models]) == (speaks, [transport != LINK])

    async def test_what_another_coordinator_says_of_the_offer_is_read_the_same(self, restart: Restart) -> None:
        """One of the version before announces polling hosts without the word."""
        hosts = restart()
        published = await hosts.register(make_new_host())
        native = await hosts.register(make_new_host(speaks="native"))

        for host in (published, native):
            hosts.fleet.replace_offer(host.id, (make_offer(name="n"),), 2)

        assert [host.candidates["n"].text_only for host in (published, native)] == [True, False]
        assert hosts.fleet.limited.text_only == 1
        hosts.fleet.remove(published.id)
        assert hosts.fleet.limited.text_only == 0


class TestFlush:
    async def test_what_was_learnt_survives_a_start(self, restart: Restart) -> None:
        hosts = restart()
        host = await hosts.register(make_new_host())
        for n in range(9):
            hosts.fleet.outcome(host.id, DONE, buyer=bytes([n]), tokens=5, paid_uusd=MERIT_UUSD)
        hosts.fleet.outcome(host.id, LOST, buyer=b"other")
        hosts.fleet.replace_offer(host.id, (make_offer(name="other"),), 7)

        assert await hosts.flush() == 1

        again = restart()
        await again.load()
        kept = again.fleet.get(host.id)
        assert (kept.jobs_done, kept.jobs_lost, kept.tokens_done, kept.slots.total) == (9, 1, 45, 7)
        assert [*kept.candidates] == ["other"] and kept.last_seen_ms > 0
        assert again.fleet.explain_reputation(host.id) == hosts.fleet.explain_reputation(host.id)
        assert 0.4 < kept.candidates["other"].reputation < (1 + 9) / (4 + 9)

    async def test_writes_only_what_changed(self, restart: Restart) -> None:
        hosts = restart()
        await hosts.register(make_new_host())
        await hosts.flush()

        assert await hosts.flush() == 0

    async def test_writes_more_than_one_command_holds(self, restart: Restart, database: Database) -> None:
        hosts = restart()
        rows = [make_row(n=n, transport=POLL) for n in range(1, FLUSH_ROWS_MAX + 3)]
        for done in [database.run(partial(insert_host, row=row)) for row in rows]:
            await done
        for row in rows:
            hosts.admit(row)

        assert await hosts.flush() == FLUSH_ROWS_MAX + 2
        assert await database.fetch("SELECT count(*) FROM hosts WHERE status = ?", [ACTIVE]) == [(FLUSH_ROWS_MAX + 2,)]

    async def test_a_failed_write_is_done_again_next_time(self, restart: Restart, database: Database) -> None:
        hosts = restart()
        host = await hosts.register(make_new_host())

        with pytest.raises(Unavailable):
            await Hosts(Away(), FakeClock(), hosts.fleet, UrlGuard()).flush()
        assert host.id in hosts.fleet.changed
        assert await hosts.flush() == 1


class TestRetire:
    async def test_it_never_comes_back_but_its_record_stays(self, restart: Restart) -> None:
        hosts = restart()
        host = await hosts.register(make_new_host(public_key=b"k" * 32))

        await hosts._db.run(lambda tx: hosts.retire_in(tx, host.id, 1))
        await hosts.bar(host.id, for_good=True)

        again = restart()
        assert await again.load() == 0
        row = await again.read(host.id)
        assert row.public_key == b"k" * 32 and row.retired_ms is not None
        assert await hosts._db.run(lambda tx: hosts.is_retired(tx, host.id))
        assert not await again.meet(host.id) and not await again.readmit(host.id)
        with pytest.raises(UnknownHost):
            await again.read(b"?" * 16)


class TestCheckHost:
    @pytest.mark.parametrize(
        ("new", "field"),
        [
            (make_new_host(gpu=""), "gpu"),
            (make_new_host(gpu="x" * 201), "gpu"),
            (make_new_host(gpu="a\x00b"), "gpu"),
            (make_new_host(gpu="\ud800"), "gpu"),
            (make_new_host(backend="x" * 65), "backend"),
            (make_new_host(region="x" * 65), "region"),
            (make_new_host(models=()), "models"),
            (make_new_host(models=tuple(make_offer(name=str(n)) for n in range(257))), "models"),
            (make_new_host(models=(make_offer(), make_offer())), "models"),
            (make_new_host(models=(make_offer(name=""),)), "models[0]"),
            (make_new_host(models=(make_offer(name="a"), make_offer(name="x" * 257))), "models[1]"),
            (make_new_host(models=(make_offer(kinds=()),)), "models[0]"),
            (make_new_host(models=(make_offer(context_tokens=0),)), "models[0].context_tokens"),
            (make_new_host(models=(make_offer(price_in=-1),)), "models[0].price_in"),
            (make_new_host(models=(make_offer(price_out=10**12 + 1),)), "models[0].price_out"),
            (make_new_host(slots=0), "slots"),
            (make_new_host(slots=4097), "slots"),
            (make_new_host(vram_mib=-1), "vram_mib"),
            (make_new_host(transport="pigeon"), "transport"),
            (make_new_host(transport=PUSH), "endpoint_url"),
            (make_new_host(transport=PUSH, endpoint_url="http://127.0.0.1/"), "endpoint_url"),
            (make_new_host(endpoint_url="http://[::ffff:7f00:1]/"), "endpoint_url"),
            (make_new_host(public_key=b"k" * 31), "public_key"),
        ],
    )
    def test_names_the_field_that_is_out_of_bounds(self, new: NewHost, field: str) -> None:
        with pytest.raises(InvalidField) as caught:
            check_host(new, UrlGuard(), Kinds())

        assert caught.value.field == field

    def test_the_limits_themselves_are_allowed(self) -> None:
        models = tuple(make_offer(name=f"{n:0256}", price_out=10**12) for n in range(256))
        url = "https://a.example/infer"
        new = make_new_host(gpu="x" * 200, models=models, slots=4096, transport=PUSH, endpoint_url=url)

        check_host(new, UrlGuard(), Kinds())
        check_host(replace(new, gpu="é"), UrlGuard(), Kinds())


class TestOffersOf:
    def test_reads_a_published_registration(self) -> None:
        (offer,) = offers_of(["meta-llama/Llama-3-8B-Instruct"], Decimal("0.00012"))

        assert (offer.price_in_uusd_per_mtok, offer.price_out_uusd_per_mtok) == (0, 120_000_000)

    @pytest.mark.parametrize(
        ("name", "clear"),
        [
            ("meta-llama/Llama-3-8B-Instruct", True),
            ("qwen2.5:7b (q4) <b>", True),
            ("mod\N{LATIN SMALL LETTER E WITH ACUTE}le", True),
            ("\N{CJK UNIFIED IDEOGRAPH-901A}\N{CJK UNIFIED IDEOGRAPH-4E49}-7b", True),
            ("\N{HANGUL SYLLABLE GA}-1", True),
            ("ll\N{CYRILLIC SMALL LETTER A}ma", False),
            ("\N{CYRILLIC SMALL LETTER ES}\N{CYRILLIC SMALL LETTER O}", False),
            ("gpt-\N{GREEK SMALL LETTER OMICRON}ss", False),
            ("l\N{LATIN SMALL LETTER ALPHA}ma", False),
            ("m\N{LATIN SMALL LETTER DOTLESS I}stral", False),
            ("ll\N{CHEROKEE LETTER GO}ma", False),
            ("\N{FULLWIDTH LATIN SMALL LETTER L}lama", False),
            ("mode\N{COMBINING ACUTE ACCENT}le", False),
            ("llama\N{ZERO WIDTH SPACE}", False),
            ("llama\N{RIGHT-TO-LEFT OVERRIDE}3", False),
            ("llama\N{SOFT HYPHEN}", False),
            ("llama\N{NO-BREAK SPACE}3", False),
            ("llama\N{HYPHEN}3", False),
            ("llama\N{FRACTION SLASH}3", False),
            ("llama\x7f", False),
            (" llama", False),
            ("llama ", False),
        ],
    )
    async def test_a_name_that_looks_like_another_is_refused(self, restart: Restart, name: str, clear: bool) -> None:
        """A host that offers somebody's model under the same looks gets what was meant for it."""
        hosts = restart()
        if clear:
            assert (await hosts.register(make_new_host(models=(make_offer(name=name),)))).row.models[0].name == name
            return
        with pytest.raises(InvalidField, match="look like no others"):
            await hosts.register(make_new_host(models=(make_offer(name=name),)))

    @pytest.mark.parametrize("price", ["-0.1", "1.1", "NaN", "0.0000000000001"])
    def test_refuses_a_price_out_of_bounds(self, price: str) -> None:
        with pytest.raises(InvalidField, match="price_per_token"):
            offers_of(["m"], Decimal(price))
