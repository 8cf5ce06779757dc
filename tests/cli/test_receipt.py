"""Receipts: shown, and verified offline with nothing but two files."""

import base64
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import Reader
from comptoir.kit.ids import public
from comptoir.receipts import envelope, registry_json
from comptoir.receipts.build import build
from comptoir.receipts.testing import make_facts, make_key, make_published_key, make_segment
from tests.cli.conftest import Invoke
from tests.post import Post, open_post


async def bought(post: Post) -> str:
    """Buy one job; return its id."""
    body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":5}'
    job = await submit(post.core, Order(post.buyer_id, "test", "chat", "trivial", body, 5, True))
    reader = Reader(job)
    while await reader.next() is not None:
        pass
    return job.id.hex()


@pytest.fixture
async def files(tmp_path: Path) -> dict[str, Any]:
    """A receipt and a key registry as files, and their server gone."""
    async with open_post(tmp_path) as post, post.worker():
        job = await bought(post)
        receipt = await post.core.receipts.envelope_of(bytes.fromhex(job))
        (tmp_path / "receipt.json").write_bytes(receipt)
        (tmp_path / "keys.json").write_bytes(await post.core.receipts.registry())
    return {"job": job, "folder": tmp_path, "envelope": json.loads(receipt)}


@pytest.fixture
def no_network(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection, once the files are there."""

    def refuse(*_: object) -> None:
        raise AssertionError("verification with --keys must not touch the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def with_payload(envelope: dict[str, Any], old: bytes, new: bytes) -> str:
    """Return the envelope with something changed in its payload."""
    payload = base64.b64decode(envelope["payload"])
    assert old in payload
    return json.dumps({**envelope, "payload": base64.b64encode(payload.replace(old, new)).decode()})


@pytest.mark.usefixtures("no_network")
class TestVerify:
    def test_a_good_one_passes_every_check(self, invoke: Invoke, files: dict[str, Any]) -> None:
        result = invoke("receipt", "verify", "receipt.json", "--keys", "keys.json")

        assert result.exit_code == 0
        assert result.output.count("✓") == 9
        assert "valid, checked against keys.json" in result.output

    def test_json_names_each_check(self, invoke: Invoke, files: dict[str, Any]) -> None:
        result = invoke("receipt", "verify", "receipt.json", "--keys", "keys.json", "--json")

        verdict = json.loads(result.output)
        assert (verdict["ok"], verdict["reason"], verdict["charged_uusd"]) == (True, None, 501)
        assert verdict["job"] == "job_" + files["job"]
        assert len(verdict["checks"]) == 9 and all(check["ok"] for check in verdict["checks"])

    def test_what_a_host_claimed_beyond_what_it_is_paid_for_is_said(self, invoke: Invoke, tmp_path: Path) -> None:
        key = make_key(1)
        facts = make_facts(segments=[make_segment(frames=3, claimed=900)])
        (tmp_path / "claim.json").write_bytes(envelope(build(facts, key)))
        (tmp_path / "theirs.json").write_bytes(registry_json([make_published_key(key)]))

        said = invoke("receipt", "verify", "claim.json", "--keys", "theirs.json")
        found = json.loads(invoke("receipt", "verify", "claim.json", "--keys", "theirs.json", "--json").output)

        host = public("host", facts.segments[0].host_id)
        assert said.exit_code == 0
        assert f"{host} claimed 900 tokens; at most 3 were delivered, and more was not paid" in said.output
        assert found["claimed_beyond"] == [{"host": host, "unit": "token_out", "claimed": 900, "billed": 3}]
        assert found["unbounded_segments"] == 0

    def test_a_changed_amount_is_refused_with_the_reason(self, invoke: Invoke, files: dict[str, Any]) -> None:
        forged = with_payload(files["envelope"], b'"charged_uusd":501', b'"charged_uusd":101')
        (files["folder"] / "forged.json").write_text(forged)

        result = invoke("receipt", "verify", "forged.json", "--keys", "keys.json")

        assert result.exit_code == 1
        assert "✗ the coordinator's signature is good" in result.output
        assert "bad_coordinator_signature" in result.output

    def test_a_key_that_is_not_in_the_registry_is_refused(self, invoke: Invoke, files: dict[str, Any]) -> None:
        (files["folder"] / "none.json").write_text('{"keys":[]}')

        result = invoke("receipt", "verify", "receipt.json", "--keys", "none.json", "--json")

        assert result.exit_code == 1
        assert json.loads(result.output)["reason"] == "unknown_key"

    def test_standard_input_works(self, invoke: Invoke, files: dict[str, Any]) -> None:
        result = invoke("receipt", "verify", "-", "--keys", "keys.json", input=json.dumps(files["envelope"]))

        assert result.exit_code == 0

    @pytest.mark.parametrize("text", ["", "[]", "\x00", '{"payload":1}'])
    def test_something_else_is_refused(self, invoke: Invoke, files: dict[str, Any], text: str) -> None:
        result = invoke("receipt", "verify", "-", "--keys", "keys.json", input=text)

        assert result.exit_code == 1
        assert "not_an_envelope" in result.output

    def test_a_missing_file_is_named(self, invoke: Invoke) -> None:
        result = invoke("receipt", "verify", "nothing.json", "--keys", "keys.json")

        assert result.exit_code == 2
        assert "nothing.json can't be read" in result.output

    def test_a_broken_registry_says_so(self, invoke: Invoke, files: dict[str, Any]) -> None:
        (files["folder"] / "bad.json").write_text("{}")

        result = invoke("receipt", "verify", "receipt.json", "--keys", "bad.json")

        assert result.exit_code == 1
        assert "not a key registry" in result.output
