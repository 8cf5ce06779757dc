"""Lists stay short however many names are registered: 3,000 hosts with a name each made ``/v1/models`` 19 MB."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from comptoir.hosts import LINK, NewHost
from comptoir.kinds import ContainerChain
from comptoir.link import ContainerCard, ModelOffer
from tests.post import Post, open_post

pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTED = 50
HOSTS = 300
"""With a name each: several times as many as are listed."""

PROVEN, SHARED, OLD = "zz-proven", "zz-shared", "zz-first"
"""Names that sort behind all others, and are listed for what they have."""


def fake(number: int) -> NewHost:
    """One of many hosts with as much to say as it may, under a name that nobody else has."""
    name = f"{number:04}".ljust(256, "x")
    card = ContainerCard(description="d" * 2000, image="i" * 2000)
    return NewHost(
        gpu="g" * 200,
        models=(
            ModelOffer(name, ["chat"], 4096, 1, 1),
            ModelOffer("c" + name[1:], [ContainerChain.name], 4096, 0, 1, container=card),
            *[ModelOffer(f"{name[:4]}-{n}".ljust(256, "y"), ["chat"]) for n in range(20)],
        ),
        transport=LINK,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    async with open_post(
        tmp_path_factory.mktemp("lists"), models_listed_max=LISTED, infernet_anonymous="any"
    ) as opened:
        fleet, hosts = opened.core.fleet, opened.core.hosts
        rows = [NewHost(gpu="x", models=(ModelOffer(OLD, ["chat"], 4096, 1, 1),), transport=LINK)]
        rows += [fake(number) for number in range(HOSTS)]
        rows += [NewHost(gpu="x", models=(ModelOffer(PROVEN, ["chat"], 4096, 1, 1),), transport=LINK)]
        rows += [NewHost(gpu="x", models=(ModelOffer(SHARED, ["chat"], 4096, 1, 1),), transport=LINK)] * 2
        for at, new in enumerate(rows):
            # Written nowhere: what is listed is in memory.
            row = hosts.prepare(new)
            fleet.add(replace(row, created_ms=at))
            fleet.mark_linked(row.id)
        host = next(one for one in fleet if PROVEN in one.candidates)
        host.candidates[PROVEN].reputation = 0.9
        known = fleet.free_list(PROVEN)
        assert known is not None
        known.moved(host.candidates[PROVEN])
        yield opened


async def read(post: Post, path: str, *, accept: str = "*/*") -> tuple[int, bytes]:
    """Return status and body."""
    headers = {"authorization": f"Bearer {post.buyer_key}", "accept": accept}
    async with aiohttp.ClientSession(post.url, headers=headers) as session, session.get(path) as answer:
        return answer.status, await answer.read()


LISTS = [
    ("/v1/models", lambda body: [one["id"] for one in body["data"]], 64_000),
    ("/models", lambda body: [one["name"] for one in body["models"]], 64_000),
    ("/house/models", lambda body: [one["name"] for one in body["models"]], 64_000),
    ("/house/containers", lambda body: [one["name"] for one in body["containers"]], 64_000),
    ("/infernet/info", lambda body: [one["id"] for one in body["containers"]], 64_000),
]


class TestLists:
    @pytest.mark.parametrize(("path", "names", "bytes_max"), LISTS, ids=[path for path, *_ in LISTS])
    async def test_each_is_bounded_and_sorted_by_name(self, post: Post, path: str, names: Any, bytes_max: int) -> None:
        status, body = await read(post, path)

        listed = names(msgspec.json.decode(body))
        assert status == 200 and len(listed) == LISTED and listed == sorted(listed)
        assert len(body) < 600 * LISTED + bytes_max

    async def test_listed_is_what_has_most_behind_it(self, post: Post) -> None:
        listed = [one.name for one in post.core.fleet.models()]

        assert {PROVEN, SHARED, OLD} <= set(listed)
        # Of names with one new host each, those that came first.
        assert all(name < "0003" for name in listed if name not in (PROVEN, SHARED, OLD))

    async def test_what_is_not_listed_is_counted_looked_up_and_bought(self, post: Post) -> None:
        last = f"{HOSTS - 1:04}".ljust(256, "x")
        container = "c" + last[1:]
        assert last not in [one.name for one in post.core.fleet.models()]

        for path, named in (
            (f"/v1/models/{last}", "id"),
            (f"/models/{last}", "name"),
        ):
            status, body = await read(post, path)
            assert (status, msgspec.json.decode(body)[named]) == (200, last)
        _, body = await read(post, f"/house/models?name={last}")
        page = msgspec.json.decode(body)
        assert [one["name"] for one in page["models"]] == [last]
        assert page["models_total"] == HOSTS * 21 + 3
        _, body = await read(post, f"/house/containers?name={container}")
        page = msgspec.json.decode(body)
        assert [(one["name"], len(one["description"])) for one in page["containers"]] == [(container, 2000)]
        assert page["total"] == HOSTS
        _, body = await read(post, "/house/models?name=nobody-has-it")
        assert msgspec.json.decode(body)["models"] == []

    async def test_the_page_and_the_figures_count_all_and_show_the_foremost(self, post: Post) -> None:
        _, body = await read(post, "/", accept="text/html")
        text = body.decode()

        assert len(body) < 300_000
        assert f"{HOSTS * 21 + 3:,} models" in text and PROVEN in text and SHARED in text
        _, body = await read(post, "/metrics", accept="text/plain")
        assert f"comptoir_models {HOSTS * 21 + 3}.0" in body.decode()
        _, body = await read(post, "/house/status")
        assert msgspec.json.decode(body)["models"] == HOSTS * 21 + 3


class TestHosts:
    @pytest.mark.parametrize(
        ("path", "offers"),
        [
            ("/house/hosts?limit=200", lambda host: [one["name"] for one in host["models"]]),
            ("/hosts?limit=1000", lambda host: host["models"]),
        ],
    )
    async def test_a_page_of_many_shows_some_offers_of_each(self, post: Post, path: str, offers: Any) -> None:
        _, body = await read(post, path)

        hosts = msgspec.json.decode(body)["hosts"]
        assert sum(len(offers(host)) for host in hosts) <= 2_000 + 4 * len(hosts)
        assert max(len(offers(host)) for host in hosts) < 22
        assert len(body) < 3_000_000

    async def test_the_one_that_is_asked_for_is_among_them(self, post: Post) -> None:
        name = "0007-19".ljust(256, "y")
        for path in (f"/house/hosts?model={name}", f"/hosts?model={name}"):
            _, body = await read(post, path)
            (host,) = msgspec.json.decode(body)["hosts"]
            assert name.encode() in body and len(host["models"]) == 22
