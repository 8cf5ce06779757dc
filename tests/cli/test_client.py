"""The commands of buyers and operators against a running post."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.cli.api import Api
from comptoir.cli.evidence import _list
from comptoir.cli.market import _list_models
from comptoir.cli.target import Target
from comptoir.receipts import registry_json
from tests.cli.conftest import Invoke, Up
from tests.post import open_post
from tests.rooms.receipts.test_evidence import KEYS, LIE, exhibit, segment

Json = Any


def read(result: Any) -> Json:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


class TestMoney:
    def test_balance(self, ask: Invoke) -> None:
        result = ask("balance")

        assert result.exit_code == 0
        assert "demo (buyer)" in result.output
        assert "100.00 credits ($1.00)" in result.output
        assert read(ask("balance", "--json"))["name"] == "demo"

    def test_a_deposit_shows_in_the_statement(self, ask: Invoke) -> None:
        made = ask("deposit", "2.5", "--to", "operator")
        assert made.exit_code == 0
        assert "2.50 credits ($0.025)" in made.output

        page = read(ask("statement", "--json"))

        assert [row["kind"] for row in page["transfers"]] == ["signup"]
        assert "signup" in ask("statement").output

    def test_a_deposit_made_once_is_made_once(self, ask: Invoke) -> None:
        asked = ("deposit", "1", "--to", "operator", "--once", "invoice-1", "--json")

        assert read(ask(*asked)) == read(ask(*asked))

    def test_a_bad_amount_says_why(self, ask: Invoke) -> None:
        result = ask("deposit", "0.00001", "--to", "demo")

        assert result.exit_code == 1
        assert "at most four decimals" in result.output

    def test_a_buyer_makes_no_deposits(self, invoke: Invoke, post: Up) -> None:
        result = invoke("deposit", "1", "--url", post.quickstart.url, "--key", post.quickstart.key)

        assert result.exit_code == 4
        assert "operator's key" in result.output


class TestActs:
    @pytest.mark.parametrize(
        ("verb", "back", "says"),
        [
            (
                ("models", "quarantine", "fake/llama"),
                ("models", "release", "fake/llama"),
                "fake/llama is in quarantine",
            ),
            (("users", "suspend", "demo"), ("users", "resume", "demo"), "demo is suspended"),
            (("hosts", "suspend", "HOST"), ("hosts", "resume", "HOST"), "is suspended (act"),
        ],
    )
    def test_each_is_said_listed_and_taken_back(
        self, ask: Invoke, post: Up, verb: tuple[str, ...], back: tuple[str, ...], says: str
    ) -> None:
        body = {"gpu": "x", "models": ["of-a-test"], "price_per_token": 0}
        api = Api(Target(post.quickstart.url, post.quickstart.admin_key, ""))
        host = api.call("POST", "/hosts/register", body=body).json()["host_id"]
        verb, back = [tuple(word.replace("HOST", host) for word in words) for words in (verb, back)]

        done = ask(*verb, "--reason", "it [lies]")
        try:
            assert done.exit_code == 0 and says in done.output
            newest = read(ask("acts", "--limit", "1", "--json"))["acts"][0]
            assert (newest["operator"], newest["reason"]) == ("operator", "it [lies]")
            assert "it [lies]" in ask("acts").output
            if verb[0] == "hosts":
                assert host in ask("hosts", "--status", "suspended").output
            if verb[0] == "users":
                refused = ask("balance")
                assert refused.exit_code == 4 and "it [lies]" in refused.output
        finally:
            lifted = read(ask(*back, "--reason", "it was a mistake", "--json"))
        assert lifted["verb"].startswith(back[0].removesuffix("s"))
        assert f"{host} is retired for good" in ask("hosts", "retire", host, "--reason", "the test is over").output

    def test_a_buyer_can_not_act_and_a_reason_is_needed(self, invoke: Invoke, ask: Invoke, post: Up) -> None:
        refused = invoke(
            "users", "suspend", "operator", "--reason", "x", "--url", post.quickstart.url, "--key", post.quickstart.key
        )
        assert refused.exit_code == 4 and "operator's key" in refused.output
        missing = ask("models", "quarantine", "m")
        assert missing.exit_code == 2 and "--reason" in missing.output
        last = ask("users", "suspend", "operator", "--reason", "x")
        assert last.exit_code == 1 and "last operator" in last.output


class TestInvitations:
    def test_one_is_made_listed_and_revoked(self, ask: Invoke) -> None:
        made = read(ask("invite", "--for", "user", "--uses", "3", "--credits", "2.5", "--note", "for [Ada]", "--json"))
        shown = ask("invite", "--for", "host").output
        listed = read(ask("invitations", "--json"))["invitations"]

        assert "inv_" in shown and "COMPTOIR_INVITATION=inv_" in shown and "for 1 host until" in shown
        assert [(one["invited_as"], one["uses_max"], one["credit_uusd"]) for one in listed] == [
            ("host", 1, None),
            ("user", 3, 25_000),
        ]
        assert "0/3" in ask("invitations").output
        assert ask("invitations", "--revoke", made["id"]).output == "✓ revoked; 0 of 3 came with it\n"
        assert read(ask("invitations", "--json", "--limit", "1"))["next"] == listed[0]["id"]

    def test_a_buyer_makes_none(self, invoke: Invoke, post: Up) -> None:
        result = invoke("invite", "--for", "host", "--url", post.quickstart.url, "--key", post.quickstart.key)

        assert result.exit_code == 4


class TestEvidence:
    def test_nothing_against_a_host_that_did_nothing(self, ask: Invoke) -> None:
        host = read(ask("hosts", "--json"))["hosts"][0]["id"]

        assert "was contradicted" in ask("hosts", "evidence", host).output
        assert read(ask("hosts", "evidence", host, "--json")) == {"host": host, "evidence": []}
        refused = ask("hosts", "forfeit", host, "--evidence", "exhibit_" + "0" * 32, "--reason", "for the test")
        assert refused.exit_code == 1 and "nothing was put up for this host" in refused.output

    def test_a_list_shows_what_was_signed_and_what_arrived(self, capsys: pytest.CaptureFixture[str]) -> None:
        _list(msgspec.to_builtins(exhibit(LIE, segment())))

        shown = capsys.readouterr().out
        assert "frames 0 to 2: signed 2 units, hash bbbbbbbbbbbbbbbb…; arrived 2 units, hash aaaaaaaaaaaaaaaa…" in shown

    def test_a_saved_list_is_verified_offline(self, invoke: Invoke, tmp_path: Path) -> None:
        (tmp_path / "keys.json").write_bytes(registry_json(KEYS))
        (tmp_path / "good.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(exhibit(LIE, segment())), indent=2)
        )
        (tmp_path / "bad.json").write_bytes(msgspec.json.encode(exhibit(segment(), segment())))

        good = invoke("hosts", "evidence", "--verify", "good.json", "--keys", "keys.json")
        bad = invoke("hosts", "evidence", "--verify", "bad.json", "--keys", "keys.json", "--json")
        none = invoke("hosts", "evidence", "--verify", "keys.json", "--keys", "keys.json")

        assert (good.exit_code, bad.exit_code, none.exit_code) == (0, 1, 1)
        assert "✓ exhibit_" in good.output and "the host signed a running hash" in good.output
        assert [one["ok"] for one in json.loads(bad.stdout)] == [False]
        assert "not a file of exhibits" in none.output

    @pytest.mark.parametrize("arguments", [(), ("host_1", "--verify", "f")])
    def test_a_host_or_a_file_and_not_both(self, invoke: Invoke, arguments: tuple[str, ...]) -> None:
        assert invoke("hosts", "evidence", *arguments).exit_code == 2


class TestMarket:
    def test_models(self, ask: Invoke) -> None:
        assert "$1.00/M" in ask("models").output
        (model,) = read(ask("models", "--json"))["models"]
        assert (model["name"], model["price_out_uusd_per_mtok"]) == ("trivial", 1_000_000)

    def test_what_models_can_do_is_listed_and_claims_are_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        model = {"name": "m", "kinds": ["chat"], "hosts": 1, "context_tokens": 1, "waiting": 0}
        model |= {"price_in_uusd_per_mtok": 0, "price_out_uusd_per_mtok": 0}
        _list_models(
            [{**model, "capabilities": {"tools": "probed", "vision": "claimed"}}, {**model, "name": "of before"}]
        )

        assert "tools, vision (claimed)" in capsys.readouterr().out

    def test_hosts(self, ask: Invoke) -> None:
        result = ask("hosts", "--why")

        assert "active" in result.output
        assert "0 jobs ended here" in result.output
        (host,) = read(ask("hosts", "--json", "--model", "trivial"))["hosts"]
        assert host["status"] == "active"

    def test_no_hosts_says_how_to_add_one(self, ask: Invoke) -> None:
        assert "comptoir host" in ask("hosts", "--model", "no such").output


class TestJobs:
    def test_none_yet_says_how_to_buy_one(self, ask: Invoke) -> None:
        assert read(ask("jobs", "--json")) == {"jobs": [], "next": None}
        assert "comptoir run" in ask("jobs").output

    def test_an_unknown_job_is_one_line(self, ask: Invoke) -> None:
        result = ask("jobs", "show", "job_" + "0" * 32)

        assert result.exit_code == 1
        assert result.output.strip() == "✗ no such job"

    def test_options_work_before_and_behind_the_subcommand(self, invoke: Invoke, post: Up) -> None:
        where = ("--url", post.quickstart.url, "--key", post.quickstart.key)

        for words in (("jobs", *where, "show", "job_1"), ("jobs", "show", "job_1", *where)):
            assert "no such job" in invoke(*words).output


class TestKeys:
    def test_json_is_the_registry_itself(self, ask: Invoke, tmp_path: Path) -> None:
        registry = read(ask("keys", "--json"))

        assert {one["holder_kind"] for one in registry["keys"]} == {"coordinator", "host"}
        assert "coordinator" in ask("keys").output


class TestAudit:
    def test_the_running_post(self, ask: Invoke) -> None:
        assert "zero differences" in ask("audit").output
        assert read(ask("audit", "--json"))["ok"] is True

    def test_the_folder_itself(self, invoke: Invoke, post: Up) -> None:
        result = invoke("audit", "--data", str(post.data))

        assert result.exit_code == 0
        assert "zero differences" in result.output

    def test_a_folder_without_a_post(self, invoke: Invoke, tmp_path: Path) -> None:
        result = invoke("audit", "--data", str(tmp_path))

        assert result.exit_code == 1
        assert "holds no trading post" in result.output

    def test_a_clusters_folder_says_where_its_books_are(self, invoke: Invoke, tmp_path: Path) -> None:
        (tmp_path / "c" / "postgres").mkdir(parents=True)

        result = invoke("audit", "--data", str(tmp_path / "c"))

        assert result.exit_code == 1
        assert "COMPTOIR_DATABASE=postgresql://" in result.output

    def test_a_buyer_may_not(self, invoke: Invoke, post: Up) -> None:
        assert invoke("audit", "--url", post.quickstart.url, "--key", post.quickstart.key).exit_code == 4


class TestTroubles:
    def test_no_key(self, invoke: Invoke, post: Up) -> None:
        result = invoke("balance", "--url", post.quickstart.url)

        assert result.exit_code == 4
        assert "needs a key" in result.output
        assert "COMPTOIR_KEY or --key-file" in result.output

    def test_a_wrong_key(self, invoke: Invoke, post: Up) -> None:
        result = invoke("balance", "--url", post.quickstart.url, "--key", "ck_" + "x" * 43)

        assert result.exit_code == 4
        assert "does not accept this key: this key is unknown or revoked" in result.output

    def test_nobody_listens(self, invoke: Invoke) -> None:
        result = invoke("models", "--url", "http://127.0.0.1:9")

        assert result.exit_code == 3
        assert "comptoir up" in result.output

    def test_the_data_folder_is_enough(self, invoke: Invoke, post: Up) -> None:
        assert read(invoke("balance", "--data", str(post.data), "--json"))["name"] == "demo"


class TestConfig:
    def test_it_says_where_from(self, invoke: Invoke, tmp_path: Path) -> None:
        (tmp_path / "comptoir.toml").write_text("fee_bps = 500\n")

        rows = read(invoke("config", "--data", str(tmp_path), "--set", "drain-s=3", "--json", COMPTOIR_PORT="9000"))

        assert rows["port"]["value"] == 9000 and rows["port"]["origin"] == "environment COMPTOIR_PORT"
        assert rows["fee_bps"]["origin"] == f"file {tmp_path}/comptoir.toml"
        assert (rows["drain_s"]["value"], rows["drain_s"]["origin"]) == (3.0, "flag")

    def test_only_what_changed(self, invoke: Invoke) -> None:
        assert list(read(invoke("config", "--changed", "--set", "fee_bps=1", "--json"))) == ["fee_bps"]

    @pytest.mark.parametrize(
        ("more", "value", "origin"),
        [
            ((), "loopback", "default on loopback"),
            (("--set", "host=::1"), "loopback", "default on loopback"),
            (("--set", "host=localhost"), "loopback", "default on loopback"),
            (("--set", "host=0.0.0.0"), "off", "default"),
            (("--set", "host=post.example"), "off", "default"),
            (("--set", "infernet_anonymous=off"), "off", "flag"),
            (("--set", "infernet_anonymous=any"), "any", "flag"),
            # What says that something stands before it: its callers would all look like programs of this machine.
            (("--set", "public_url=https://post.example"), "off", "default"),
            (("--set", "trusted_proxies=127.0.0.1"), "off", "default"),
            (("--set", "bus=redis://bus:6379", "--set", "database=postgresql://db/post"), "off", "default"),
        ],
    )
    def test_callers_without_a_key_are_let_in_only_where_nobody_else_can_come(
        self, invoke: Invoke, more: tuple[str, ...], value: str, origin: str
    ) -> None:
        row = read(invoke("config", "--json", *more))["infernet_anonymous"]

        assert (row["value"], row["origin"]) == (value, origin)

    @pytest.mark.parametrize(
        ("more", "value", "origin"),
        [
            ((), "open", "default"),
            (("--set", "host=localhost"), "open", "default"),
            # Coordinators of a cluster of one machine: the bus alone brings no strangers.
            (("--set", "bus=redis://bus:6379", "--set", "database=postgresql://db/post"), "open", "default"),
            (("--set", "host=0.0.0.0"), "key", "default on a network"),
            (("--set", "host=post.example"), "key", "default on a network"),
            (("--set", "public_url=https://post.example"), "key", "default on a network"),
            (("--set", "server_names=post.example"), "key", "default on a network"),
            (("--set", "trusted_proxies=127.0.0.1"), "key", "default on a network"),
            (("--set", "host=0.0.0.0", "--set", "host_registration=open"), "open", "flag"),
            (("--set", "host=0.0.0.0", "--set", "host_registration=invitation"), "invitation", "flag"),
        ],
    )
    def test_where_strangers_can_come_a_host_needs_an_owner(
        self, invoke: Invoke, more: tuple[str, ...], value: str, origin: str
    ) -> None:
        row = read(invoke("config", "--json", *more))["host_registration"]

        assert (row["value"], row["origin"]) == (value, origin)

    def test_a_setting_by_its_old_name_is_said_on_standard_error(self, invoke: Invoke) -> None:
        result = invoke("config", "--json", "--set", "allow_open_host_registration=false")

        assert "is now called host_registration: write host_registration=key" in result.stderr
        assert json.loads(result.stdout)["host_registration"]["value"] == "key"

    def test_what_the_environment_says_of_them_stands(self, invoke: Invoke) -> None:
        rows = read(invoke("config", "--json", COMPTOIR_INFERNET_ANONYMOUS="off"))

        assert rows["infernet_anonymous"]["origin"] == "environment COMPTOIR_INFERNET_ANONYMOUS"

    def test_a_table_for_people(self, invoke: Invoke) -> None:
        result = invoke("config")

        assert "fee_bps" in result.output and "default" in result.output

    @pytest.mark.parametrize(("pair", "words"), [("nonsense", "name=value"), ("port=x", "port: must be")])
    def test_a_bad_setting_is_a_usage_error(self, invoke: Invoke, pair: str, words: str) -> None:
        result = invoke("config", "--set", pair)

        assert result.exit_code == 2
        assert words in result.output


class TestAuditOfForgedBooks:
    async def test_a_difference_is_named_and_ends_with_one(self, invoke: Invoke, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post:
            post.forged = True
            forged = "UPDATE accounts SET balance_uusd = balance_uusd + 7 WHERE id = ?"
            await post.core.db.run(lambda tx: tx.execute(forged, [post.buyer_id]))

        result = await asyncio.to_thread(invoke, "audit", "--data", str(tmp_path / "data"))

        assert result.exit_code == 1
        assert "2 differences" in result.output
        assert post.buyer_id.hex() in result.output and "the whole ledger" in result.output
