"""Schemathesis asks a running post everything its OpenAPI documents allow, and much they do not: no 5xx, nothing
undeclared.

Event streams are read to their end like any answer; long polls are shortened by the setting. A call that would end its
caller's own key is made with a key that is nobody's.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import msgspec
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from comptoir import __version__
from comptoir.dialects import DIALECTS
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import NewHost
from comptoir.jobs import Reader
from comptoir.kit.http import Access, Dialect, Endpoint, document_bytes
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from tests.machines import LONG_TIMES
from tests.post import open_post

EXAMPLES = 8
"""Requests an operation, always the same ones; in the long form `LONG_TIMES` as many, new ones each time."""

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

SETTINGS = {
    "requests_per_minute_per_ip": 1_000_000,
    "requests_per_minute_per_key": 1_000_000,
    "logins_per_minute": 100_000,
    "next_job_wait_s": 0.01,
    "sse_ping_s": 0.2,
    "job_ttl_s": 2.0,
}

CHANGES_ITS_CALLER = {("infrintia", "POST", "/users/rotate-key"): "the caller's key is gone after the first call"}


@dataclass
class Running:
    """A post that runs in a thread of its own, and what a caller needs to know of it."""

    dialect: Dialect
    url: str
    keys: dict[Access, str]
    names: dict[str, str]
    """Values for path parameters, so that some calls find something."""


async def _post(folder: Path, dialect: Dialect, started: Callable[[Running], None], stop: asyncio.Event) -> None:
    async with open_post(folder, **SETTINGS) as post, post.worker():
        core = post.core
        # A host that only polls: its owner's calls are the fuzzer's.
        host = await add_host(core, NewHost(gpu="A100", models=(ModelOffer("polled", ["chat"]),)))
        body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":3}'
        job = await submit(core, Order(post.buyer_id, "test", "chat", "trivial", body, 3, False))
        reader = Reader(job)
        while await reader.next() is not None:
            pass
        keys = {
            Access.BUYER: post.buyer_key,
            Access.ANY: post.buyer_key,
            Access.OPTIONAL: "",
            Access.PUBLIC: "",
            Access.OPERATOR: post.admin_key,
            Access.HOST: host.key,
        }
        names = {"id": public("job", job.id), "host_id": public("host", host.host_id), "model": "trivial"}
        names |= {"name": "trivial", "dialect": "infrintia", "file": "infrintia.json"}
        started(Running(dialect, post.url, keys, names))
        await stop.wait()


Opener = Callable[[Dialect], Running]


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    """Give each dialect a post of its own, in a thread beside this one, because Schemathesis asks with blocking calls.

    Hosts that one dialect's calls register offer models that nobody answers for; another's buyers must not wait for
    them.
    """
    with contextlib.ExitStack() as stack:
        opened: dict[str, Running] = {}

        def open_for(dialect: Dialect) -> Running:
            if dialect.name not in opened:
                opened[dialect.name] = stack.enter_context(_beside(tmp_path_factory.mktemp(dialect.name), dialect))
            return opened[dialect.name]

        yield open_for


@pytest.fixture
def running(opener: Opener, dialect: Dialect) -> Running:
    """Give the post of the test's dialect. No parameter of a module's fixture: pytest would make it anew for each
    operation."""
    return opener(dialect)


@contextlib.contextmanager
def _beside(folder: Path, dialect: Dialect) -> Iterator[Running]:
    ready = threading.Event()
    found: list[Running] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def started(one: Running) -> None:
        found.append(one)
        ready.set()

    def run() -> None:
        try:
            loop.run_until_complete(_post(folder, dialect, started, stop))
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name="post")
    thread.start()
    ready.wait(30)
    assert found, "the post did not start"
    yield found[0]
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)
    thread.join(30)


def _document(name: str) -> dict[str, Any]:
    (dialect,) = (one for one in DIALECTS if one.name == name)
    document: dict[str, Any] = msgspec.json.decode(document_bytes(dialect, version=__version__))
    document["servers"] = [{"url": "/"}]
    return document


DOCUMENTS = {dialect.name: _document(dialect.name) for dialect in DIALECTS}
SCHEMAS = {name: schemathesis.openapi.from_dict(document) for name, document in DOCUMENTS.items()}


def _name(one: object) -> str:
    return f"{one.method} {one.path}" if isinstance(one, Endpoint) else str(getattr(one, "name", one))


each_operation = pytest.mark.parametrize(
    ("dialect", "endpoint"),
    [(dialect, endpoint) for dialect in DIALECTS for endpoint in dialect.endpoints],
    ids=_name,
)

NASTY = (
    b"", b"{", b"\xff\xfe", b"null", b"[]", b'"x"', b"1", b"[" * 100_000, b'{"a":' * 5_000, b'{"model":1e999}',
    b'{"model":"\\ud800","input_text":"\\ud800","username":"\\ud800","email":"a@b.c","password":"\\ud800\\ud800\\ud800"}',
    b'{"model":"trivial","input_text":"\\u0000","prompt":"\\u0000","input":"\\u0000","username":"a\\u0000b","password":"12345678"}',
    b'{"models":["a"],"models":null}', b'{"limit":99999999999999999999999999}', b'{"host_id":"' + b"x" * 70_000 + b'"}',
)  # fmt: skip
"""Bodies that no schema writes down: no JSON, not UTF-8, too deep, too large a number, half a character, a zero
byte."""


def sent_with(running: Running, endpoint: Endpoint) -> dict[str, str]:
    changes = (running.dialect.name, endpoint.method, endpoint.path) in CHANGES_ITS_CALLER
    key = "ck_" + "A" * 43 if changes else running.keys[endpoint.access]
    return {"authorization": f"Bearer {key}"} if key else {}


def aimed(case: Any, running: Running) -> None:
    """Let *case* name things that exist, so that it gets further than the first look-up."""
    case.path_parameters = {
        name: running.names.get(name, value) for name, value in (case.path_parameters or {}).items()
    }
    if isinstance(case.body, dict):
        known = {name: value for name, value in running.names.items() if name in case.body}
        case.body = {**case.body, **known}


class TestFuzzed:
    @pytest.mark.search
    # The trading post runs beside the search and draws random numbers of its own.
    @pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
    @each_operation
    def test_no_answer_is_a_5xx_or_undeclared(self, running: Running, dialect: Dialect, endpoint: Endpoint) -> None:
        operation = SCHEMAS[dialect.name][endpoint.path.replace(":path}", "}")][endpoint.method]
        cases = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if endpoint.request is not None:
            cases |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        headers = sent_with(running, endpoint)

        long = hypothesis.settings.get_current_profile_name() == "long"

        @hypothesis.settings(
            max_examples=EXAMPLES * LONG_TIMES if long else EXAMPLES,
            derandomize=not long,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=cases, known=hypothesis.strategies.booleans())
        def fuzz(case: Any, known: bool) -> None:
            if known:
                aimed(case, running)
            response = case.call(base_url=running.url + dialect.prefix, headers=headers, timeout=20)
            case.validate_response(response, checks=CHECKS)

        fuzz()

    @each_operation
    async def test_nor_to_bodies_beyond_any_schema(
        self, running: Running, dialect: Dialect, endpoint: Endpoint
    ) -> None:
        path = endpoint.path.replace(":path}", "}")
        declared = DOCUMENTS[dialect.name]["paths"][path][endpoint.method.lower()]["responses"]
        address = (
            running.url + dialect.prefix + path.replace("{id}", running.names["id"]).replace("{", "").replace("}", "")
        )
        headers = {**sent_with(running, endpoint), "content-type": "application/json"}
        async with aiohttp.ClientSession(headers=headers) as session:
            for body in NASTY if endpoint.request is not None else (b"",):
                async with session.request(endpoint.method, address, data=body) as response:
                    await response.read()
                    assert response.status < 500 and str(response.status) in declared, (response.status, body[:80])
