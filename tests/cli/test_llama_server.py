"""``comptoir host`` beside llama.cpp's own HTTP server, as its page says: probed, offered, priced, bought, paid."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Invoke, Program, Up, clean_environment
from tests.worker.engines.llama_cpp_http import serve_llama_cpp

PRICE_IN, PRICE_OUT = 0.05, 0.2
"""Dollars per million tokens."""


@pytest.fixture(scope="module")
def host(post: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A host whose engine is a server with a context of 4,096 tokens for two slots."""
    known, folder = post.quickstart, tmp_path_factory.mktemp("host")
    with serve_llama_cpp() as (url, key):
        started = Program(
            "host", "--engine", f"{url},api_key={key}", "--slots", "2",
            "--price-in", str(PRICE_IN), "--price-out", str(PRICE_OUT), "--state", str(folder / "state"), cwd=folder,
            env=clean_environment(COMPTOIR_URL=known.url, COMPTOIR_KEY=known.key),
        )  # fmt: skip
        try:
            started.until("connected, taking jobs")
            yield started
        finally:
            started.end()


class TestLlamaServer:
    def test_the_owner_is_told_what_was_found(self, host: Program) -> None:
        ready = host.until(r"engine openai is ready: .*")[0]

        assert "can do schema" in ready
        assert "can continue other hosts' answers by prompt token ids" in ready
        assert "(llama.cpp b" in ready

    def test_the_context_of_a_slot_and_what_it_can_do_are_offered_at_its_price(
        self, host: Program, ask: Invoke
    ) -> None:
        listed = json.loads(ask("models", "--json").stdout)["models"]

        (model,) = [one for one in listed if one["name"] == "real"]
        assert model["context_tokens"] == 2048
        assert (model["price_in_uusd_per_mtok"], model["price_out_uusd_per_mtok"]) == (50_000, 200_000)
        assert (model["capabilities"]["vision"], model["capabilities"]["schema"]) == ("lacking", "probed")

    def test_its_answer_is_bought_and_its_owner_paid(self, host: Program, ask: Invoke) -> None:
        bill: dict[str, Any] = json.loads(ask("run", "--json", "--model", "real", "What is Comptoir?").stdout)

        assert bill["text"].startswith("Comptoir")
        tokens = bill["prompt_tokens"] * PRICE_IN + bill["completion_tokens"] * PRICE_OUT
        assert (bill["state"], bill["finish_reason"], bill["cost_uusd"]) == ("completed", "stop", round(tokens))
        host.until(rf"{bill['job']} done: {bill['completion_tokens']} tokens, \+")
