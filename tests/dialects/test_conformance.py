"""Declarations hold what they promise: every path leads where it says, every error has its status, every POST its
repeat."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

import comptoir
from comptoir.dialects import DIALECTS
from comptoir.gateway import STATUSES
from comptoir.kit.errors import Refusal
from comptoir.kit.http import Dialect, Endpoint, endpoint_errors
from comptoir.ledger import InsufficientCredit
from tests.dialects.asgi import ask, sample, standing_in
from tests.post import open_post

SHARED = {("GET", "/"), ("GET", "/health"), ("GET", "/metrics")}
"""What several published APIs have at the same path; at the root the root's dialect answers for all of them."""

ELSEWHERE = ("comptoir.worker.", "comptoir.cli.", "comptoir.migrations.", "tests.")
"""Whose refusals meet no request: the worker's, the command line's, and those of a start that fails."""

REPEATABLE = {
    # POSTs that make something and need no Idempotency-Key, each with its reason.
    ("link", "/link/register"): "the machine's signing key is registered once; a repeat is refused as KeyTaken",
}

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def all_endpoints() -> Iterator[tuple[Dialect, Endpoint]]:
    for dialect in DIALECTS:
        for endpoint in dialect.endpoints:
            yield dialect, endpoint


def refusals() -> list[type[Refusal]]:
    """Return every refusal that a request can meet: the leaves of the tree, after every module was read."""
    for module in pkgutil.walk_packages(comptoir.__path__, "comptoir."):
        if not module.name.startswith(("comptoir.worker.engines.", "comptoir.kit.db.postgres")):
            importlib.import_module(module.name)
    found, waiting = [], [Refusal]
    while waiting:
        children = [one for one in waiting.pop().__subclasses__() if not one.__module__.startswith(ELSEWHERE)]
        waiting += children
        found += [one for one in children if not one.__subclasses__()]
    return sorted(set(found), key=lambda one: one.__qualname__)


def make(kind: Any) -> Any:
    """Return an instance of a class, each argument made from its type."""
    hints = get_type_hints(kind.__init__)
    given: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.default is not inspect.Parameter.empty:
            continue
        value = _value(hints.get(name, str))
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            named[name] = value
        elif parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            given.append(value)
    return kind(*given, **named)


def _value(kind: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _value(get_args(kind)[0])
    if origin is not None:
        return origin()
    plain = {str: "x", int: 1, float: 1.0, bytes: bytes(16), bool: True, object: "x"}
    if kind in plain:
        return plain[kind]
    return next(iter(kind)) if issubclass(kind, Enum) else make(kind)


class TestErrors:
    def test_the_desk_has_a_status_for_each(self) -> None:
        missing = [error.__name__ for error in refusals() if not any(parent in STATUSES for parent in error.__mro__)]
        assert missing == []

    def test_there_are_many(self) -> None:
        assert len(refusals()) > 30

    @each_dialect
    def test_a_dialect_answers_each_with_the_status_it_documents(self, dialect: Dialect) -> None:
        wrong = []
        for error in refusals():
            documented = dialect.error_statuses(error)
            reply = dialect.render_error(make(error), None)
            if reply.status != documented or not 400 <= reply.status < 600 or reply.status == 500:
                wrong.append((error.__name__, reply.status, documented))
        assert wrong == []

    @each_dialect
    def test_what_is_no_refusal_is_a_500_that_says_nothing_of_the_inside(self, dialect: Dialect) -> None:
        reply = dialect.render_error(RuntimeError("secret detail"), None)
        assert reply.status == 500 and b"secret detail" not in reply.body

    def test_endpoints_declare_refusals_only(self) -> None:
        for _, endpoint in all_endpoints():
            for error in endpoint_errors(endpoint):
                assert issubclass(error, Refusal), (endpoint.path, error)


class TestPaths:
    async def test_each_leads_to_the_endpoint_that_declares_it(self, tmp_path: Path) -> None:
        """At the root a shared path leads to the root's dialect; a path that two dialects want is not declared
        twice."""
        async with open_post(tmp_path, requests_per_minute_per_ip=1_000_000) as post:
            app = standing_in(post.core, lambda d, e: f"{d.name} {e.method} {e.path}".encode())
            wrong = []
            for dialect, endpoint in all_endpoints():
                for prefix in ([""] if dialect.at_root else []) + [dialect.prefix]:
                    path = prefix + sample(endpoint.path)
                    owner = dialect.name
                    if not prefix and (endpoint.method, endpoint.path) in SHARED:
                        owner = "root"
                    got = (await ask(app, endpoint.method, path, key=post.admin_key)).body
                    host_only = got.startswith(b"{")  # Refused by the gate in the dialect's shape: it got there.
                    if not host_only and got != f"{owner} {endpoint.method} {endpoint.path}".encode():
                        wrong.append((dialect.name, path, got))
            assert wrong == []

    def test_no_two_dialects_share_a_prefix_or_a_name(self) -> None:
        assert len({dialect.prefix for dialect in DIALECTS}) == len(DIALECTS)
        assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)

    def test_nobody_takes_the_reserved_path(self) -> None:
        """Infernet and the job registry own what lies below /api/jobs (design section 5)."""
        assert not [e.path for _, e in all_endpoints() if e.path.startswith("/api/jobs/{")]


class TestDeclarations:
    @each_dialect
    def test_each_endpoint_says_in_a_sentence_what_it_does(self, dialect: Dialect) -> None:
        for endpoint in dialect.endpoints:
            assert endpoint.summary.endswith(".") and endpoint.summary[0].isupper(), endpoint.path
        for socket in dialect.sockets:
            assert socket.summary.endswith("."), socket.path

    @each_dialect
    def test_each_post_that_creates_or_spends_takes_an_idempotency_key(self, dialect: Dialect) -> None:
        for endpoint in dialect.endpoints:
            makes = endpoint.method == "POST" and (
                endpoint.status in (201, 202) or InsufficientCredit in endpoint.errors
            )
            if makes and (dialect.name, endpoint.path) not in REPEATABLE:
                assert endpoint.idempotent, (
                    f"{endpoint.method} {endpoint.path} makes something and takes no Idempotency-Key"
                )

    def test_the_exceptions_are_no_older_than_the_declarations(self) -> None:
        declared = {(dialect.name, endpoint.path) for dialect, endpoint in all_endpoints()}
        assert set(REPEATABLE) <= declared
