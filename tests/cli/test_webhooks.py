"""``comptoir webhooks`` against a running post."""

import json
from typing import Any

import pytest

from comptoir.cli.failure import Failure
from comptoir.cli.webhooks import since_ms
from tests.cli.conftest import Invoke, until

URL = "https://hook.invalid/comptoir"
"""An address that nobody can have."""


def read(result: Any) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


class TestWebhooks:
    def test_from_add_to_rm(self, ask: Invoke) -> None:
        """The address is a name that does not resolve, so the log shows what failed."""
        shown = ask("webhooks", "add", URL, "--type", "money.added", "--note", "of [Ada]")
        (one,) = read(ask("webhooks", "ls", "--json"))["webhooks"]
        webhook = one["id"]
        sent = ask("webhooks", "test", webhook)
        until(lambda: read(ask("webhooks", "log", webhook, "--json"))["messages"][0]["attempts"])
        (message,) = read(ask("webhooks", "log", webhook, "--state", "waiting", "--json"))["messages"]
        log = ask("webhooks", "log", webhook).output

        assert "whsec_" in shown.output and webhook in shown.output
        assert (one["types"], one["note"], one["state"]) == (["money.added"], "of [Ada]", "active")
        assert webhook in ask("webhooks", "ls").output
        assert f"comptoir webhooks log {webhook}" in sent.output.replace("\n", " ")
        assert (message["type"], message["attempts"][0]["status"]) == ("webhook.test", None)
        assert "webhook.test" in log
        assert ask("webhooks", "pause", webhook).exit_code == 0
        assert read(ask("webhooks", "ls", "--json"))["webhooks"][0]["state"] == "paused"
        assert "is active" in ask("webhooks", "resume", webhook).output
        new = read(ask("webhooks", "rotate", webhook, "--json"))["secret"]
        assert new.startswith("whsec_") and new not in shown.output
        assert (
            "gone through again: 1" in ask("webhooks", "replay", webhook, "--since", "1h").output
        )  # The first credit.
        assert "there is nothing" in ask("webhooks", "replay", webhook, "--since", "2999-01-01").output
        assert read(ask("webhooks", "replay", webhook, "--message", message["id"], "--json")) == {"again": 0}
        assert "is deleted" in ask("webhooks", "rm", webhook).output
        assert "no webhooks yet" in ask("webhooks", "ls").output

    def test_refusals(self, ask: Invoke) -> None:
        assert "must not point into a private network" in ask("webhooks", "add", "http://10.0.0.1/").output
        assert ask("webhooks", "replay", "webhook_1").exit_code == 2
        assert ask("webhooks", "rm", "webhook_1").exit_code == 1


class TestSince:
    @pytest.mark.parametrize(
        ("text", "found_ms"),
        [
            ("30m", 8_200_000),
            ("90s", 9_910_000),
            ("2h", 2_800_000),
            ("1d", 0),
            ("1970-01-01T00:00:05", 5_000),
            ("1970-01-01T02:00:05+02:00", 5_000),
            ("1970-01-02", 86_400_000),
        ],
    )
    def test_it_is(self, text: str, found_ms: int) -> None:
        assert since_ms(text, now_s=10_000.0) == found_ms

    @pytest.mark.parametrize("text", ["", "m", "yesterday", "-1h", "1.5h", "9999999999d"])
    def test_it_is_none(self, text: str) -> None:
        with pytest.raises(Failure):
            since_ms(text, now_s=10_000.0)
