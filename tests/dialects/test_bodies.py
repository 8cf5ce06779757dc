"""Bodies as clients send them, in every API: compressed, with a byte order mark, in UTF-16, with whole numbers spelled
like fractions."""

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from comptoir.dialects import DIALECTS
from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Access, Dialect, Endpoint
from comptoir.kit.http.spelling import (
    FRACTIONS_MAX,
    SPELLED_BYTES_MAX,
    STEP_BYTES,
    TooManyFractions,
    is_spelling,
    spelled_step_by_step,
)
from comptoir.link import ModelOffer
from tests.dialects.asgi import sample
from tests.post import Post, open_post

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAKING = {
    # One endpoint of each dialect that takes a body, and refuses one without what it needs.
    "infrintia": "/infrintia/users",
    "infernet": "/infernet/api/jobs",
    "openai": "/openai/v1/chat/completions",
    "native": "/house/jobs",
    "link": "/comptoir/link/register",
}

each_dialect = pytest.mark.parametrize("dialect", TAKING)

BODY = b"{ }"

READ_AS_IT_IS = {
    "gzip": (gzip.compress(BODY), "gzip"),
    "deflate": (zlib.compress(BODY), "deflate"),
    "identity": (BODY, "identity"),
    "a byte order mark": (BOM_UTF8 + BODY, ""),
    "a byte order mark, compressed": (gzip.compress(BOM_UTF8 + BODY), "gzip"),
}

REFUSED: dict[str, tuple[bytes, str, tuple[int, ...], str]] = {
    "zstd": (BODY, "zstd", (415,), "with one of: gzip, deflate"),
    "br": (BODY, "br", (415,), "with one of: gzip, deflate"),
    "gzip twice": (gzip.compress(gzip.compress(BODY)), "gzip, gzip", (415,), "with one of: gzip, deflate"),
    "a bomb": (gzip.compress(bytes(1 << 20)), "gzip", (413,), "is larger than 100000 bytes"),
    "no gzip": (BODY, "gzip", (400, 422), "is not gzip"),
    "UTF-16": (BODY.decode().encode("utf-16"), "", (400, 422), "send JSON in UTF-8"),
    "UTF-16, big-endian": (BODY.decode().encode("utf-16-be"), "", (400, 422), "send JSON in UTF-8"),
    "UTF-16, little-endian": (BODY.decode().encode("utf-16-le"), "", (400, 422), "send JSON in UTF-8"),
    "UTF-32": (BODY.decode().encode("utf-32"), "", (400, 422), "send JSON in UTF-8"),
}


@dataclass
class Everybody:
    """A post, and whoever sends bodies to it."""

    post: Post
    host_key: str
    session: aiohttp.ClientSession

    async def send(self, path: str, body: bytes, encoding: str = "", *, key: str = "") -> tuple[int, bytes, Any]:
        headers = {"Authorization": f"Bearer {key or self.post.admin_key}", "Content-Type": "application/json"}
        if encoding:
            headers["Content-Encoding"] = encoding
        async with self.session.post(self.post.url + path, data=body, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everybody(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everybody]:
    many = {"requests_per_minute_per_key": 1_000_000, "requests_per_minute_per_host": 1_000_000}
    folder = tmp_path_factory.mktemp("bodies")
    limits = {
        "body_bytes_max": 100_000,
        "body_bytes_without_key_max": 100_000,
        "infernet_requests_per_minute": 1_000_000,
    }
    async with open_post(folder, **many, **limits) as post, aiohttp.ClientSession() as session:
        host = await add_host(post.core, NewHost(gpu="A100", models=(ModelOffer("m", ["chat"]),)))
        yield Everybody(post, host.key, session)


async def test_each_dialect_that_takes_a_body_is_tried() -> None:
    assert {d.name for d in DIALECTS if any(e.request is not None for e in d.endpoints)} == set(TAKING)


class TestBodies:
    @each_dialect
    async def test_they_are_read_as_what_they_are(self, everybody: Everybody, dialect: str) -> None:
        status, said, _ = await everybody.send(TAKING[dialect], BODY)
        assert status in (400, 422) and b"required" in said
        for name, (body, encoding) in READ_AS_IT_IS.items():
            assert (await everybody.send(TAKING[dialect], body, encoding))[:2] == (status, said), name

    @each_dialect
    async def test_others_are_refused_in_words_that_help(self, everybody: Everybody, dialect: str) -> None:
        for name, (body, encoding, statuses, words) in REFUSED.items():
            status, said, headers = await everybody.send(TAKING[dialect], body, encoding)
            assert status in statuses and words in said.decode(), (name, status, said)
            assert (headers.get("Accept-Encoding") == "gzip, deflate") is (status == 415), name

    async def test_a_client_may_compress_while_it_sends(self, everybody: Everybody) -> None:
        """In chunks, whose size nobody knows before."""
        headers = {"Authorization": f"Bearer {everybody.post.admin_key}"}
        url = everybody.post.url + TAKING["openai"]
        for encoding in ("gzip", "deflate"):
            sent = {"model": 5, "padding": "x" * 50_000}
            async with everybody.session.post(url, json=sent, headers=headers, compress=encoding) as answer:
                assert (answer.status, (await answer.json())["error"]["param"]) == (400, "model")

    async def test_a_repeat_may_be_compressed(self, everybody: Everybody) -> None:
        """What a request says is what it becomes, also for its Idempotency-Key; and an engine gets it unpacked."""
        post = everybody.post
        body = b'{"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4.0}'
        await post.core.ledger.deposit(owner_id=post.buyer_id, amount_uusd=1_000_000)
        headers = {"Authorization": f"Bearer {post.buyer_key}", "Idempotency-Key": "once"}
        url, found = post.url + "/v1/chat/completions", []
        async with post.worker():
            for sent, encoding in ((BOM_UTF8 + body, "identity"), (gzip.compress(body), "gzip")):
                more = {**headers, "Content-Encoding": encoding}
                async with everybody.session.post(url, data=sent, headers=more) as answer:
                    found.append((answer.status, (await answer.json()).get("id")))
        assert found[0] == found[1] and found[0][0] == 200


# -- numbers -------------------------------------------------------------------------------------------------------


def whole_fields() -> Iterator[tuple[Dialect, Endpoint, str, int]]:
    """Give the whole numbers at the top of a body that also needs something else, each with one that is in bounds."""
    for dialect in DIALECTS:
        for endpoint in dialect.endpoints:
            if endpoint.request is None or not endpoint.decodes or not issubclass(endpoint.request, msgspec.Struct):
                continue
            fields = msgspec.inspect.type_info(endpoint.request).fields  # type: ignore[union-attr]
            for field in fields:
                kinds = list(_kinds(field.type))
                numbers = [kind for kind in kinds if isinstance(kind, msgspec.inspect.IntType)]
                others = any(other.required for other in fields if other is not field)
                if numbers and others and not any(isinstance(kind, msgspec.inspect.FloatType) for kind in kinds):
                    yield dialect, endpoint, field.encode_name, max(1, numbers[0].ge or 0, (numbers[0].gt or 0) + 1)


def _kinds(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    if isinstance(kind, msgspec.inspect.Metadata):
        yield from _kinds(kind.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for one in kind.types:
            yield from _kinds(one)
    else:
        yield kind


class TestNumbers:
    async def test_a_whole_one_may_be_spelled_like_a_fraction_and_no_other_may(self, everybody: Everybody) -> None:
        """One rule for every field of every dialect; what else is missing in the body is said after it."""
        tried, wrong = set(), []
        for dialect, endpoint, field, value in whole_fields():
            path = dialect.prefix + sample(endpoint.path)
            key = everybody.host_key if endpoint.access is Access.HOST else everybody.post.admin_key

            async def said(spelled: str, path: str = path, field: str = field, key: str = key) -> tuple[int, str]:
                status, body, _ = await everybody.send(
                    path, b'{"%b": %b}' % (field.encode(), spelled.encode()), key=key
                )
                return status, body.decode()

            plain = await said(str(value))
            as_it_is = [await said(one) for one in (f"{value}.0", f"{value}e0", f"{value}0E-1")]
            refused = [await said(one) for one in (f"{value}.5", f'"{value}"', f"{value}e400", "true")]
            if plain[0] not in (400, 422) or "required" not in plain[1] or set(as_it_is) != {plain}:
                wrong.append((path, field, plain, as_it_is))
            for status, words in refused:
                if status not in (400, 422) or field not in words or words == plain[1]:
                    wrong.append((path, field, status, words))
            tried.add(dialect.name)
        assert wrong == []
        assert {"openai", "infrintia", "native"} <= tried

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b'{"a": 1.0, "b":[1e3,-2.50E1]}', b'{"a": 1, "b":[1000,-25]}'),
            (b'{"a": 1.5, "b": 15e-1, "c": 0.1}', None),
            (rb'{"1.0": "1.0", "a\"1.0": "\\", "b": 1.0}', rb'{"1.0": "1.0", "a\"1.0": "\\", "b": 1}'),
            (b"[-0.0, 0e5, 10.00]", b"[0, 0, 10]"),
            (b"[1e400, 1e-400, 123456789012345678901234.0, 1" + b"0" * 100 + b".0]", None),
            (b"[9007199254740993.0, -9223372036854775808.0]", b"[9007199254740993, -9223372036854775808]"),
            (b'"' + b"1.0 " * 50_000 + b'\\"', None),
            (b"1" * 200_000 + b".0", None),
            (b"[" + b"1.5," * 9_000 + b"2.0]", b"[" + b"1.5," * 9_000 + b"2]"),
            (b"[" + b" " * (STEP_BYTES - 4) + b",10.0," + b"0," * STEP_BYTES + b"3.0]",
             b"[" + b" " * (STEP_BYTES - 4) + b",10," + b"0," * STEP_BYTES + b"3]"),
        ],
    )  # fmt: skip
    async def test_only_whole_ones_outside_of_texts_are_spelled_anew(self, body: bytes, expected: bytes | None) -> None:
        pieces = list(spelled_step_by_step(body))
        assert b"".join(pieces) == (body if expected is None else expected)

    @pytest.mark.parametrize(
        "body", [b"[" + b"1.0," * (FRACTIONS_MAX + 1) + b"1]", b'[1.0,"' + b'\\"' * (SPELLED_BYTES_MAX // 2) + b'"]']
    )
    async def test_there_is_a_bound(self, body: bytes) -> None:
        with pytest.raises(TooManyFractions):
            list(spelled_step_by_step(body))

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [
            ("expected `int`, got `float`", True),
            ("expected `int | null`, got `float`", True),
            ("expected `int | str | array`, got `float`", True),
            ("expected `int`, got `str`", False),
            ("expected `str`, got `float`", False),
            ("expected `array`, got `int`", False),
        ],
    )
    async def test_which_refusals_are_about_it(self, reason: str, expected: bool) -> None:
        assert is_spelling(InvalidField("a", reason)) is expected
