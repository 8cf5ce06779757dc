"""The checked-in OpenAPI documents are what the declarations say, and valid OpenAPI 3.1."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from comptoir import __version__
from comptoir.dialects import DIALECTS
from comptoir.kit.http import Dialect, document_bytes

FOLDER = Path(__file__).parents[2] / "openapi"

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


@cache
def written(dialect: Dialect) -> bytes:
    return document_bytes(dialect, version=__version__)


def document(dialect: Dialect) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(written(dialect))
    return loaded


class TestDocuments:
    @each_dialect
    def test_what_is_checked_in_is_what_is_declared(self, dialect: Dialect) -> None:
        file = FOLDER / f"{dialect.name}.json"
        assert file.exists() and file.read_bytes() == written(dialect), "run `make openapi`"

    def test_nothing_else_is_checked_in(self) -> None:
        assert {file.stem for file in FOLDER.glob("*.json")} == {dialect.name for dialect in DIALECTS}

    @each_dialect
    def test_it_is_valid_openapi(self, dialect: Dialect) -> None:
        schemathesis.openapi.from_dict(document(dialect)).validate()

    @each_dialect
    def test_it_names_every_endpoint_and_its_own_prefix(self, dialect: Dialect) -> None:
        found = document(dialect)
        operations = [one["operationId"] for path in found["paths"].values() for one in path.values()]
        assert len(operations) == len(set(operations)) == len(dialect.endpoints)
        urls = [server["url"] for server in found["servers"]]
        assert (dialect.prefix or "/") in urls

    @each_dialect
    def test_every_refusal_has_the_dialects_body(self, dialect: Dialect) -> None:
        for path in document(dialect)["paths"].values():
            for operation in path.values():
                for status, answer in operation["responses"].items():
                    if int(status) >= 400:
                        assert answer["content"]["application/json"]["schema"] != {}, operation["operationId"]
