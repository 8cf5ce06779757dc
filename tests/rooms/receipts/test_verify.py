"""Verification: a good receipt passes every check; forged, altered, foreign and revoked ones say why not."""

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from comptoir.kit import ids
from comptoir.kit.signing import SigningKey
from comptoir.link import SEGMENT_PAYLOAD_TYPE, pae
from comptoir.receipts import (
    COORDINATOR,
    PAYLOAD_TYPE,
    AuthenticatedBy,
    BadRegistry,
    Check,
    HolderKind,
    KeyRegistry,
    Reason,
    Receipt,
    ReceiptFacts,
    ReceiptTransfer,
    SegmentFacts,
    build_and_sign,
    envelope,
    read_registry,
    registry_json,
    registry_of,
    verify,
)
from comptoir.receipts.testing import JOB_ID, NOW_MS, make_facts, make_key, make_published_key, make_segment

COORDINATOR_KEY, HOST_KEY, OTHER_HOST_KEY, STRANGER_KEY = make_key(1), make_key(2), make_key(3), make_key(4)
DAY_MS = 24 * 3_600_000
FIRST = make_segment(number=1, frames=3, key=HOST_KEY)
SECOND = make_segment(number=2, frames=2, before=FIRST, key=OTHER_HOST_KEY)
"""The answer of a job that went on at a second host after the first died."""


def host(segment: SegmentFacts) -> str:
    return ids.public("host", segment.host_id)


def registry(**changes: Any) -> KeyRegistry:
    """The coordinator's and both hosts' keys; *changes* apply to the coordinator's."""
    return registry_of(
        [
            make_published_key(COORDINATOR_KEY, **changes),
            make_published_key(HOST_KEY, holder_kind=HolderKind.HOST, holder=host(FIRST)),
            make_published_key(OTHER_HOST_KEY, holder_kind=HolderKind.HOST, holder=host(SECOND)),
        ]
    )


def sealed(facts: ReceiptFacts, key: SigningKey = COORDINATOR_KEY) -> bytes:
    payload, signature = build_and_sign(facts, key)
    return envelope(Receipt(facts.job_id, key.keyid, payload, signature))


def resealed(change: Callable[[dict[str, Any]], None], key: SigningKey = COORDINATOR_KEY) -> bytes:
    """A receipt of two segments, altered, then signed again: what a lying coordinator could make."""
    payload, _ = build_and_sign(make_facts(segments=[FIRST, SECOND]), COORDINATOR_KEY)
    statement = json.loads(payload)
    change(statement)
    payload = json.dumps(statement, separators=(",", ":")).encode()
    return envelope(Receipt(JOB_ID, key.keyid, payload, key.sign(pae(PAYLOAD_TYPE, payload))))


def reworded(change: Callable[[dict[str, Any]], None]) -> bytes:
    """A good receipt whose envelope is altered and not signed again."""
    outer = json.loads(sealed(make_facts(segments=[FIRST, SECOND])))
    change(outer)
    return json.dumps(outer).encode()


class TestGoodReceipts:
    def test_passes_every_check(self) -> None:
        verdict = verify(sealed(make_facts(segments=[FIRST, SECOND])), registry())

        assert verdict.ok, verdict
        assert verdict.checks == list(Check)
        assert verdict.unsigned_segments == 0

    def test_says_what_the_facts_said(self) -> None:
        facts = make_facts(segments=[FIRST, SECOND])

        statement = verify(sealed(facts), registry()).statement

        assert statement is not None
        predicate = statement.predicate
        assert statement.subject[0].digest.sha256 == SECOND.running_hash.hex()
        assert (predicate.job, predicate.receipt) == (ids.public("job", JOB_ID), ids.public("rcpt", JOB_ID))
        assert [entry.host for entry in predicate.segments] == [host(FIRST), host(SECOND)]
        assert predicate.amounts.transfers == facts.transfers
        assert predicate.amounts.charged_uusd == facts.charged_uusd

    def test_a_host_that_does_not_sign_is_vouched_for_by_the_coordinator_and_counted(self) -> None:
        verdict = verify(sealed(make_facts(segments=[make_segment(number=1)])), registry())

        assert verdict.ok, verdict
        assert verdict.unsigned_segments == 1
        assert verdict.statement is not None
        assert verdict.statement.predicate.segments[0].authenticated_by is AuthenticatedBy.HOST_KEY

    def test_a_job_that_got_no_answer_has_a_good_receipt(self) -> None:
        assert verify(sealed(make_facts(segments=[])), registry()).ok

    def test_a_key_revoked_after_the_settlement_still_counts(self) -> None:
        assert verify(sealed(make_facts()), registry(revoked_ms=NOW_MS + 1)).ok

    def test_a_clock_that_stepped_back_a_day_makes_no_receipt_worthless(self) -> None:
        assert verify(sealed(make_facts()), registry(valid_from_ms=NOW_MS + DAY_MS)).ok


class TestOtherImplementation:
    def test_securesystemslib_accepts_the_envelope(self) -> None:
        key = SSlibKey(COORDINATOR_KEY.keyid, "ed25519", "ed25519", {"public": COORDINATOR_KEY.public_key.hex()})
        parsed = Envelope.from_dict(json.loads(sealed(make_facts(segments=[FIRST, SECOND]))))

        assert set(parsed.verify([key], 1)) == {COORDINATOR_KEY.keyid}

    def test_securesystemslib_accepts_the_hosts_signature_in_it(self) -> None:
        entry = json.loads(build_and_sign(make_facts(segments=[FIRST]), COORDINATOR_KEY)[0])["predicate"]["segments"][0]
        key = SSlibKey(HOST_KEY.keyid, "ed25519", "ed25519", {"public": HOST_KEY.public_key.hex()})
        inner = {
            "payload": entry["statement"],
            "payloadType": SEGMENT_PAYLOAD_TYPE,
            "signatures": [{"keyid": entry["keyid"], "sig": entry["signature"]}],
        }

        assert set(Envelope.from_dict(inner).verify([key], 1)) == {HOST_KEY.keyid}

    def test_securesystemslib_refuses_another_key(self) -> None:
        stranger = SSlibKey(COORDINATOR_KEY.keyid, "ed25519", "ed25519", {"public": STRANGER_KEY.public_key.hex()})
        parsed = Envelope.from_dict(json.loads(sealed(make_facts())))

        with pytest.raises(VerificationError):
            parsed.verify([stranger], 1)


def _segment(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda statement: statement["predicate"]["segments"][number].update(changes)


def _predicate(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda statement: statement["predicate"].update(changes)


def _units(into: int, out: int) -> Callable[[dict[str, Any]], None]:
    def change(statement: dict[str, Any]) -> None:
        units = statement["predicate"]["units"]
        units[0]["count"], units[1]["count"] = into, out

    return change


def _count_segment(statement: dict[str, Any], number: int, *, out: int) -> None:
    statement["predicate"]["segments"][number]["units"][1]["count"] = out


def _other_unit(statement: dict[str, Any]) -> None:
    statement["predicate"]["segments"][0]["units"][1]["unit"] = "run"


def _input_twice(statement: dict[str, Any]) -> None:
    unsigned = {"authenticated_by": "host_key", "keyid": None, "statement": None, "signature": None}
    for segment in statement["predicate"]["segments"]:
        segment.update(unsigned)
    for one in (statement["predicate"], *statement["predicate"]["segments"]):
        one["units"].append({**one["units"][0], "unit": "byte"})


def _claim(statement: dict[str, Any], claimed: int) -> None:
    statement["predicate"]["segments"][0]["units"][1]["claimed"] = claimed


def _longer_than_sent(statement: dict[str, Any]) -> None:
    for one in (statement["predicate"], *statement["predicate"]["segments"]):
        one.update({"keyid": None, "statement": None, "signature": None, "authenticated_by": "host_key"})
        one["units"][0]["count"] = 3 * 100 + 1_024 + 1


def _dearer_host(statement: dict[str, Any]) -> None:
    statement["predicate"]["segments"][1]["units"][1]["rate"] += 1


def _amounts(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda statement: statement["predicate"]["amounts"].update(changes)


def _swap_segments(statement: dict[str, Any]) -> None:
    statement["predicate"]["segments"].reverse()


def _swap_signatures(statement: dict[str, Any]) -> None:
    first, second = statement["predicate"]["segments"]
    first["signature"], second["signature"] = second["signature"], first["signature"]


def _swap_statements(statement: dict[str, Any]) -> None:
    first, second = statement["predicate"]["segments"]
    for name in ("statement", "signature"):
        first[name], second[name] = second[name], first[name]


def _drop_second(statement: dict[str, Any]) -> None:
    del statement["predicate"]["segments"][1]


def _unsign_first(statement: dict[str, Any]) -> None:
    unsigned = {"authenticated_by": "host_key", "keyid": None, "statement": None, "signature": None}
    statement["predicate"]["segments"][0].update(unsigned)


def _move_money(statement: dict[str, Any]) -> None:
    _unsign_first(statement)
    statement["predicate"]["amounts"]["transfers"][0]["payee"] = "host_" + "f" * 32


def _double_transfer(statement: dict[str, Any]) -> None:
    rows = statement["predicate"]["amounts"]["transfers"]
    rows[1]["transfer"] = rows[0]["transfer"]


def _overcharge(statement: dict[str, Any]) -> None:
    amounts = statement["predicate"]["amounts"]
    amounts["transfers"][0]["amount_uusd"] += 10
    amounts["charged_uusd"] += 10
    amounts["held_uusd"] += 10


def _negative(statement: dict[str, Any]) -> None:
    amounts = statement["predicate"]["amounts"]
    amounts["transfers"][0]["amount_uusd"] -= 100
    amounts["transfers"][2]["amount_uusd"] += 100


def _empty_first_changes_hash(statement: dict[str, Any]) -> None:
    _unsign_first(statement)
    statement["predicate"]["segments"][0].update(end_frame=0)
    _count_segment(statement, 0, out=0)


def _flip_trailing_bits(outer: dict[str, Any]) -> None:
    # 64 bytes end in "==" and leave four bits of the last digit unused: another text for the same signature.
    sig = outer["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    outer["signatures"][0]["sig"] = sig[:-3] + alphabet[alphabet.index(sig[-3]) ^ 1] + "=="
    assert base64.b64decode(outer["signatures"][0]["sig"]) == base64.b64decode(sig)


def _first_signature(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda outer: outer["signatures"][0].update(changes)


REFUSED: list[tuple[str, bytes, KeyRegistry, Reason]] = [
    # -- the envelope
    ("not JSON", b"receipt", registry(), Reason.NOT_AN_ENVELOPE),
    ("empty", b"", registry(), Reason.NOT_AN_ENVELOPE),
    ("not UTF-8", b'{"payload": "\xff"}', registry(), Reason.NOT_AN_ENVELOPE),
    ("another JSON", b'{"keys": []}', registry(), Reason.NOT_AN_ENVELOPE),
    ("not base64", reworded(lambda outer: outer.update(payload="&&&&")), registry(), Reason.NOT_AN_ENVELOPE),
    ("base64 not ASCII", reworded(lambda outer: outer.update(payload="é")), registry(), Reason.NOT_AN_ENVELOPE),
    ("malleable base64", reworded(_flip_trailing_bits), registry(), Reason.NOT_AN_ENVELOPE),
    ("no signature", reworded(lambda outer: outer["signatures"].clear()), registry(), Reason.NOT_AN_ENVELOPE),
    (
        "two signatures",
        reworded(lambda outer: outer["signatures"].extend(outer["signatures"])),
        registry(),
        Reason.NOT_AN_ENVELOPE,
    ),
    (
        "other payload type",
        reworded(lambda outer: outer.update(payloadType="text/plain")),
        registry(),
        Reason.WRONG_PAYLOAD_TYPE,
    ),
    # -- whose key
    ("stranger's key", sealed(make_facts(), STRANGER_KEY), registry(), Reason.UNKNOWN_KEY),
    ("empty registry", sealed(make_facts()), registry_of([]), Reason.UNKNOWN_KEY),
    ("a host signs the whole", sealed(make_facts(), HOST_KEY), registry(), Reason.FOREIGN_KEY),
    (
        "stranger under our key id",
        reworded(
            _first_signature(
                sig=base64.b64encode(
                    STRANGER_KEY.sign(pae(PAYLOAD_TYPE, build_and_sign(make_facts(), STRANGER_KEY)[0]))
                ).decode()
            )
        ),
        registry(),
        Reason.BAD_COORDINATOR_SIGNATURE,
    ),
    ("short signature", reworded(_first_signature(sig="AAAA")), registry(), Reason.BAD_COORDINATOR_SIGNATURE),
    ("key revoked before", sealed(make_facts()), registry(revoked_ms=NOW_MS), Reason.KEY_REVOKED),
    ("key not yet valid", sealed(make_facts()), registry(valid_from_ms=NOW_MS + DAY_MS + 1), Reason.KEY_NOT_YET_VALID),
    # -- the statement
    (
        "altered payload",
        reworded(
            lambda outer: outer.update(
                payload=base64.b64encode(
                    base64.b64decode(outer["payload"]).replace(b"completed", b"cancelled")
                ).decode()
            )
        ),
        registry(),
        Reason.BAD_COORDINATOR_SIGNATURE,
    ),
    ("other predicate", resealed(lambda s: s.update(predicateType="urn:else")), registry(), Reason.NOT_A_RECEIPT),
    ("other statement type", resealed(lambda s: s.update(_type="urn:else")), registry(), Reason.NOT_A_RECEIPT),
    ("a field missing", resealed(lambda s: s["predicate"].pop("units")), registry(), Reason.NOT_A_RECEIPT),
    (
        "subject is another job",
        resealed(lambda s: s["subject"][0].update(name="job_" + "0" * 32)),
        registry(),
        Reason.NOT_A_RECEIPT,
    ),
    ("two subjects", resealed(lambda s: s["subject"].append(s["subject"][0])), registry(), Reason.NOT_A_RECEIPT),
    ("receipt of another job", resealed(_predicate(receipt="rcpt_" + "0" * 32)), registry(), Reason.NOT_A_RECEIPT),
    # -- the segments
    (
        "host key not registered",
        sealed(make_facts(segments=[make_segment(key=STRANGER_KEY)])),
        registry(),
        Reason.UNKNOWN_KEY,
    ),
    (
        "signed with another host's key",
        sealed(make_facts(segments=[make_segment(key=OTHER_HOST_KEY)])),
        registry(),
        Reason.FOREIGN_KEY,
    ),
    (
        "signed with the coordinator's key",
        sealed(make_facts(segments=[make_segment(key=COORDINATOR_KEY)])),
        registry(),
        Reason.FOREIGN_KEY,
    ),
    (
        "host key revoked",
        sealed(make_facts(segments=[FIRST])),
        registry_of(
            [
                make_published_key(COORDINATOR_KEY),
                make_published_key(HOST_KEY, holder_kind=HolderKind.HOST, holder=host(FIRST), revoked_ms=NOW_MS - 1),
            ]
        ),
        Reason.KEY_REVOKED,
    ),
    ("signatures swapped", resealed(_swap_signatures), registry(), Reason.BAD_SEGMENT_SIGNATURE),
    ("statements swapped", resealed(_swap_statements), registry(), Reason.BAD_SEGMENT_SIGNATURE),
    ("signature left out", resealed(_segment(0, signature=None)), registry(), Reason.BAD_SEGMENT_SIGNATURE),
    (
        "unsigned with a signature",
        resealed(_segment(0, authenticated_by="host_key")),
        registry(),
        Reason.SEGMENT_MISMATCH,
    ),
    (
        "segment of another job",
        sealed(make_facts(segments=[make_segment(job_id=b"J" * 16, key=HOST_KEY)])),
        registry(),
        Reason.SEGMENT_MISMATCH,
    ),
    ("another attempt", resealed(_segment(0, attempt="att_" + "0" * 32)), registry(), Reason.SEGMENT_MISMATCH),
    ("more tokens than signed", resealed(lambda s: _count_segment(s, 0, out=4)), registry(), Reason.SEGMENT_MISMATCH),
    ("longer range than signed", resealed(_segment(1, end_frame=9)), registry(), Reason.SEGMENT_MISMATCH),
    ("other hash than signed", resealed(_segment(1, chain="0" * 64)), registry(), Reason.SEGMENT_MISMATCH),
    ("other input than signed", resealed(_predicate(input_sha256="0" * 64)), registry(), Reason.SEGMENT_MISMATCH),
    # -- frames, units, money
    ("segments in another order", resealed(_swap_segments), registry(), Reason.FRAMES_DO_NOT_FOLLOW),
    ("last segment dropped", resealed(_drop_second), registry(), Reason.CHAIN_MISMATCH),
    ("an empty segment changes the hash", resealed(_empty_first_changes_hash), registry(), Reason.CHAIN_MISMATCH),
    (
        "other answer",
        resealed(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
        registry(),
        Reason.CHAIN_MISMATCH,
    ),
    (
        "more tokens billed",
        resealed(_units(10, 6)),
        registry(),
        Reason.UNITS_DO_NOT_ADD_UP,
    ),
    (
        "longer prompt billed",
        resealed(_units(11, 5)),
        registry(),
        Reason.UNITS_DO_NOT_ADD_UP,
    ),
    (
        "negative tokens",
        resealed(_units(-1, 5)),
        registry(),
        Reason.UNITS_DO_NOT_ADD_UP,
    ),
    ("negative bytes", resealed(_segment(0, output_bytes=-1)), registry(), Reason.UNITS_DO_NOT_ADD_UP),
    ("a claim that is none", resealed(lambda s: _claim(s, 3)), registry(), Reason.UNITS_DO_NOT_ADD_UP),
    ("a claim that was not signed", resealed(lambda s: _claim(s, 9)), registry(), Reason.SEGMENT_MISMATCH),
    (
        "more tokens billed than bytes came",
        sealed(make_facts(segments=[make_segment(frames=40, output_bytes=7)])),
        registry(),
        Reason.UNITS_BEYOND_OUTPUT,
    ),
    (
        "tokens billed for nothing",
        resealed(_segment(0, output_bytes=0)),
        registry(),
        Reason.UNITS_BEYOND_OUTPUT,
    ),
    ("a prompt longer than its request", resealed(_longer_than_sent), registry(), Reason.UNITS_BEYOND_OUTPUT),
    ("a segment in another unit", resealed(_other_unit), registry(), Reason.UNITS_DO_NOT_ADD_UP),
    ("two units of the input", resealed(_input_twice), registry(), Reason.UNITS_DO_NOT_ADD_UP),
    ("no unit", resealed(_predicate(units=[])), registry(), Reason.UNITS_DO_NOT_ADD_UP),
    ("a host dearer than agreed", resealed(_dearer_host), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("less released", resealed(_amounts(released_uusd=49)), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("fee not posted", resealed(_amounts(fee_uusd=1)), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("transfers dropped", resealed(_amounts(transfers=[])), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("a host paid that delivered nothing", resealed(_move_money), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("one transfer twice", resealed(_double_transfer), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("charged above the price", resealed(_overcharge), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
    ("negative amount", resealed(_negative), registry(), Reason.AMOUNTS_DO_NOT_ADD_UP),
]


class TestWhatMayBePaid:
    """The receipt says how many bytes came, and the verifier applies the rule of the kind once more."""

    def test_what_a_host_claims_beyond_it_is_stated_and_not_paid(self) -> None:
        segment = make_segment(frames=3, key=HOST_KEY, claimed=900)

        verdict = verify(sealed(make_facts(segments=[segment])), registry())

        assert verdict.ok and verdict.statement is not None, verdict
        (entry,) = verdict.statement.predicate.segments
        assert [(unit.count, unit.claimed) for unit in entry.units] == [(10, None), (3, 900)]
        assert (verdict.unsigned_segments, verdict.unbounded_segments) == (0, 0)

    @pytest.mark.parametrize(("frames", "output_bytes", "good"), [(37, 5, True), (38, 5, False), (1, 1, True)])
    def test_a_few_more_than_bytes_are_believed(self, frames: int, output_bytes: int, good: bool) -> None:
        facts = make_facts(segments=[make_segment(frames=frames, output_bytes=output_bytes)])

        assert verify(sealed(facts), registry()).ok is good

    def test_a_host_that_delivered_nothing_is_not_paid_for_the_prompt(self) -> None:
        """At a price for the prompt alone: the host of an empty answer takes nothing."""
        facts = make_facts(segments=[make_segment(frames=0)])
        dear = msgspec.structs.replace(facts.segments[0], rate_in=1_000_000)
        host_id = host(dear)
        paid = msgspec.structs.replace(
            facts,
            segments=[dear],
            rate_in=1_000_000,
            held_uusd=60,
            charged_uusd=10,
            transfers=[ReceiptTransfer("t", "host", host_id, 10)],
        )

        assert verify(sealed(paid), registry()).reason is Reason.AMOUNTS_DO_NOT_ADD_UP

    @pytest.mark.parametrize(
        ("change", "unbounded"), [(_segment(0, output_bytes=None), 1), (_predicate(kind="of_others"), 2)]
    )
    def test_where_the_bytes_or_the_rule_are_not_known_it_says_so(
        self, change: Callable[[dict[str, Any]], None], unbounded: int
    ) -> None:
        verdict = verify(resealed(change), registry())

        assert verdict.ok and verdict.unbounded_segments == unbounded, verdict


class TestRefusals:
    @pytest.mark.parametrize(
        ("envelope_json", "keys", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
    )
    def test_says_why(self, envelope_json: bytes, keys: KeyRegistry, reason: Reason) -> None:
        verdict = verify(envelope_json, keys)

        assert verdict.reason is reason, verdict
        assert verdict.detail
        assert verdict.statement is None
        assert verdict.checks != list(Check)

    def test_every_reason_has_a_case(self) -> None:
        assert {row[3] for row in REFUSED} == set(Reason)


GOOD_PAYLOAD, GOOD_SIGNATURE = build_and_sign(make_facts(segments=[FIRST, SECOND]), COORDINATOR_KEY)
GOOD_ENVELOPE = envelope(Receipt(JOB_ID, COORDINATOR_KEY.keyid, GOOD_PAYLOAD, GOOD_SIGNATURE))


def flipped(data: bytes, at: int, bits: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


class TestEveryByteCounts:
    @given(at=st.integers(0, len(GOOD_PAYLOAD) - 1), bits=st.integers(1, 255))
    def test_of_the_payload(self, at: int, bits: int) -> None:
        forged = Receipt(JOB_ID, COORDINATOR_KEY.keyid, flipped(GOOD_PAYLOAD, at, bits), GOOD_SIGNATURE)

        assert verify(envelope(forged), registry()).reason is Reason.BAD_COORDINATOR_SIGNATURE

    @given(at=st.integers(0, len(GOOD_SIGNATURE) - 1), bits=st.integers(1, 255))
    def test_of_the_signature(self, at: int, bits: int) -> None:
        forged = Receipt(JOB_ID, COORDINATOR_KEY.keyid, GOOD_PAYLOAD, flipped(GOOD_SIGNATURE, at, bits))

        assert verify(envelope(forged), registry()).reason is Reason.BAD_COORDINATOR_SIGNATURE

    @given(at=st.integers(0, len(GOOD_ENVELOPE) - 1), bits=st.integers(1, 255))
    def test_of_the_envelope(self, at: int, bits: int) -> None:
        assert not verify(flipped(GOOD_ENVELOPE, at, bits), registry()).ok

    @pytest.mark.parametrize("name", ["payload", "payloadType", "signatures", "keyid", "sig", "Payload", "PAYLOADTYPE"])
    @pytest.mark.parametrize("first", [True, False])
    def test_a_field_is_there_once(self, name: str, first: bool) -> None:
        """Of two payloads one reader believes the first and another the last; some do not look at case."""
        text, bogus = GOOD_ENVELOPE.decode(), f'"{name}":"Ym9ndXM="'
        inner = name in ("keyid", "sig")
        start, end = (text.index("[{") + 2, text.index("}]")) if inner else (1, len(text) - 1)
        forged = text[:start] + bogus + "," + text[start:] if first else text[:end] + "," + bogus + text[end:]

        verdict = verify(forged.encode(), registry())

        assert verdict.reason is Reason.NOT_AN_ENVELOPE, verdict

    @given(data=st.binary(max_size=300))
    def test_noise_is_refused_and_never_raises(self, data: bytes) -> None:
        assert not verify(data, registry()).ok

    @given(size=st.integers(0, len(GOOD_ENVELOPE) - 1))
    def test_a_cut_receipt_is_refused(self, size: int) -> None:
        assert not verify(GOOD_ENVELOPE[:size], registry()).ok


class TestRegistry:
    def test_reads_back_what_is_published(self) -> None:
        keys = list(registry(revoked_ms=5).by_keyid.values())

        assert list(read_registry(registry_json(keys)).by_keyid.values()) == keys

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"[]", "not a key registry"),
            (b'{"keys": [{"keyid": "00"}]}', "not a key registry"),
            (registry_json([make_published_key()] * 2), "twice"),
            (registry_json([make_published_key()]).replace(b'"keyid":', b'"Keyid":"00","keyid":'), "twice"),
            (registry_json([make_published_key()]).replace(b'"keyid":"', b'"keyid":"00'), "not the SHA-256"),
            (registry_json([make_published_key()]).replace(b'"public_key":"', b'"public_key":"zz'), "not hexadecimal"),
        ],
    )
    def test_a_malformed_one_is_not_trusted(self, text: bytes, words: str) -> None:
        with pytest.raises(BadRegistry, match=words):
            read_registry(text)

    def test_a_receipt_cannot_bring_its_own_key(self) -> None:
        """The stranger signs everything well; only the registry says that nobody knows him."""
        segment = make_segment(key=STRANGER_KEY)

        verdict = verify(sealed(make_facts(segments=[segment]), STRANGER_KEY), registry())

        assert verdict.reason is Reason.UNKNOWN_KEY
        assert make_published_key(STRANGER_KEY).holder == COORDINATOR
