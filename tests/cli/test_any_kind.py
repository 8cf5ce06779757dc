"""A kind that does not ship, as people meet it: offered, listed, bought, looked at and shown in its own unit."""

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from comptoir.cli.api import Api
from comptoir.cli.target import Target
from tests.cli.conftest import Invoke, Program, Up
from tests.selling import TARGET

BODY = {"said": "letters, letters, letters"}
BYTES = len(json.dumps(BODY))


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A trading post that sells the kind, with a model."""
    up = Up(tmp_path_factory.mktemp("post"), "--set", f"kinds={TARGET}")
    try:
        yield up.ready()
    finally:
        up.end()


@pytest.fixture(scope="module")
def host(post: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A host there that sells text by the kilobyte."""
    known, folder = post.quickstart, tmp_path_factory.mktemp("host")
    started = Program(
        "host", "--url", known.url, "--key", known.admin_key, "--engine", "tests.selling:Scribe", "--kind", TARGET,
        "--unit-price", "byte=0.0002", "--state", str(folder / "state"), cwd=folder,
    )  # fmt: skip
    try:
        started.until("connected, taking jobs")
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def job(post: Up, host: Program) -> dict[str, Any]:
    """One that was bought and is over."""
    known = post.quickstart
    api = Api(Target(known.url, known.key, ""))
    bought = api.call("POST", "/house/jobs", body={"kind": "letters", "model": "scribe", "body": BODY}).json()
    until = time.monotonic() + 20
    while True:
        found: dict[str, Any] = api.get(f"/house/jobs/{bought['id']}").json()
        if found["receipt"]:
            return found
        assert time.monotonic() < until
        time.sleep(0.05)


def read(post: Up, path: str) -> str:
    known = post.quickstart
    headers = {"accept": "text/html, text/plain, */*", "authorization": f"Bearer {known.key}"}
    with urllib.request.urlopen(urllib.request.Request(known.url + path, headers=headers)) as page:
        return str(page.read().decode())


class TestAnyKind:
    def test_its_host_is_told_the_price_and_what_was_made(self, host: Program, job: dict[str, Any]) -> None:
        host.until(r"engine scribe is ready: scribe \(0\.02 credits per kilobyte\) \([0-9]+ bytes/s, ")
        host.until(rf"{job['id']} done: {BYTES} bytes, \+0\.0007 credits")

    def test_it_is_listed_apart_from_models(self, host: Program, ask: Invoke) -> None:
        said = ask("models").stdout

        line = next(line.split() for line in said.splitlines() if line.startswith("scribe"))
        assert line == ["scribe", "writer", "letters", "1", "$0.0002", "per", "kilobyte", "0"]
        assert "trivial" in said and "prices are dollars per million tokens" in said

    def test_it_is_not_asked_and_it_is_said_how_it_is_bought(self, host: Program, ask: Invoke) -> None:
        result = ask("run", "--model", "scribe", "hi")

        assert result.exit_code == 1 and "scribe is a writer: it is sold per kilobyte" in result.output
        assert "comptoir run kind letters '{…}' --model scribe" in result.output

    def test_it_is_bought_with_its_body(self, host: Program, ask: Invoke) -> None:
        result = ask("run", "kind", "letters", json.dumps(BODY))

        assert (result.exit_code, result.stdout) == (0, json.dumps(BODY)), result.output
        assert f"{BYTES} bytes · " in result.stderr

    def test_its_job_is_shown_in_its_unit(self, ask: Invoke, job: dict[str, Any]) -> None:
        assert f"{BYTES} bytes" in ask("jobs").stdout
        shown = ask("jobs", "show", job["id"]).stdout

        assert [line.split()[1:] for line in shown.splitlines() if line.startswith("bytes ")] == [
            [str(BYTES), "of", str(BYTES)]
        ]
        assert any(line.split() == ["writer", "scribe"] for line in shown.splitlines())
        assert job["cost_uusd"] == round(BYTES * 0.2)

    def test_programs_are_told_units_and_prices(self, job: dict[str, Any]) -> None:
        price = {"unit": "byte", "uusd_per_million": 200_000, "per": 1000, "words": "per kilobyte"}
        unit = {
            "unit": "byte",
            "one": "byte",
            "many": "bytes",
            "count": BYTES,
            "most": BYTES,
            "once": False,
            "shown": 1,
        }

        assert (job["noun"], job["units"]) == ("writer", [unit])
        (attempt,) = job["attempts"]
        assert (attempt["prices"], attempt["units"], attempt["stage"]) == ([price], [{**unit, "most": None}], None)

    def test_its_receipt_counts_it(self, ask: Invoke, job: dict[str, Any]) -> None:
        shown = ask("receipt", "show", job["receipt"]).stdout

        assert any(line.split() == ["byte", str(BYTES)] for line in shown.splitlines()) and "good" in shown

    def test_the_page_shows_it_and_does_not_ask_it(self, post: Up, job: dict[str, Any]) -> None:
        page = read(post, "/")

        assert 'data-other="scribe"' in page and "0.02 credits per kilobyte" in page and "1 writer" in page
        assert '<option value="trivial">' in page and '<option value="scribe">' not in page
        assert '"id":"scribe"' not in read(post, "/v1/models")

    def test_metrics_count_it_and_no_token(self, post: Up, job: dict[str, Any]) -> None:
        text = read(post, "/metrics")

        counted = re.search(r'^comptoir_units_total\{unit="byte"\} ([0-9]+)\.0$', text, re.MULTILINE)
        # Another test may have bought it as well.
        assert counted is not None and int(counted[1]) in (BYTES, 2 * BYTES) and "comptoir_tokens_total 0.0" in text
