"""Digests and signers: the golden vector of the compiled contract, eth-account as the judge, and every way to be
wrong."""

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from comptoir.chain import (
    NOBODY,
    BadRecoveryId,
    Domain,
    NotRecoverable,
    ScalarOutOfRange,
    Signature,
    SignatureExpired,
    Subscription,
    containers_id,
    digest,
    domain_separator,
    eip712,
    recover,
    struct_hash,
)
from comptoir.chain.curve import ORDER, checksummed, keccak256
from comptoir.chain.testing import NOON_S, OWNER, make_domain, make_signature, make_subscription
from comptoir.kit.errors import InvalidField

DEV_WORDS = "test test test test test test test test test test test junk"
"""What every development chain makes its funded accounts of."""

GOLDEN_DOMAIN = Domain(chain_id=31337, verifying_contract="0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512")
GOLDEN = make_subscription(
    owner="0x0165878A594ca255338adfa4d48449f69242Eb8F", active_at=1_700_000_000, containers=containers_id(["echo"])
)
GOLDEN_SIGNATURE = Signature(
    nonce=1,
    expiry=1_800_000_000,
    v=27,
    r=0x6429E85C934FD939E7E123FF1ED8C642665B50EE21B9956CE876D6B6580AE0C8,
    s=0x721B88798CDAA28B9EDF2E2CFEDB7246907335B244B232A073583B34CC2DDEC7,
)

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
uint16, uint32, uint256 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 256))
subscriptions = st.builds(
    Subscription,
    owner=addresses,
    active_at=uint32,
    period=uint32,
    frequency=uint32,
    redundancy=uint16,
    containers=st.binary(min_size=32, max_size=32),
    lazy=st.booleans(),
    verifier=addresses,
    payment_amount=uint256,
    payment_token=addresses,
    wallet=addresses,
)
domains = st.builds(Domain, chain_id=uint256, verifying_contract=addresses)

TYPES = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "DelegateSubscription": [
        {"name": "nonce", "type": "uint32"},
        {"name": "expiry", "type": "uint32"},
        {"name": "sub", "type": "Subscription"},
    ],
    "Subscription": [
        {"name": name, "type": kind}
        for kind, name in (pair.split() for pair in eip712.SUBSCRIPTION_TYPE[13:-1].split(","))
    ],
}


def judged(domain: Domain, subscription: Subscription, nonce: int, expiry: int) -> bytes:
    """Return the digest as eth-account computes it from the typed data."""
    names = [field["name"] for field in TYPES["Subscription"]]
    fields = dict(zip(names, (getattr(subscription, name) for name in Subscription.__slots__), strict=True))
    message = encode_typed_data(
        full_message={
            "types": TYPES,
            "primaryType": "DelegateSubscription",
            "domain": {
                "name": "InfernetCoordinator",
                "version": "1",
                "chainId": domain.chain_id,
                "verifyingContract": domain.verifying_contract,
            },
            "message": {"nonce": nonce, "expiry": expiry, "sub": fields},
        }
    )
    return bytes(_hash_eip191_message(message))


class TestGolden:
    """What the compiled contract accepted, word for word."""

    def test_the_type_hashes(self) -> None:
        assert keccak256(eip712.DOMAIN_TYPE.encode()) == eip712.DOMAIN_TYPE_HASH
        assert keccak256(eip712.SUBSCRIPTION_TYPE.encode()) == eip712.SUBSCRIPTION_TYPE_HASH
        assert keccak256(eip712.DELEGATE_TYPE.encode()) == eip712.DELEGATE_TYPE_HASH

    def test_the_domain(self) -> None:
        assert domain_separator(GOLDEN_DOMAIN).hex() == (
            "0da40050d747332d4028233d5e6cc011e618dc2dd0e9d30b9886f503a7a8d8cc"
        )

    def test_the_struct(self) -> None:
        assert struct_hash(GOLDEN, nonce=1, expiry=1_800_000_000).hex() == (
            "36e2e229ff66469f6dd3cac98b5ee48d745aedfc6c5f47bb6c0f3bfc36698b75"
        )

    def test_the_digest(self) -> None:
        assert digest(GOLDEN_DOMAIN, GOLDEN, nonce=1, expiry=1_800_000_000).hex() == (
            "94d8d0c8d23f61226e007ee8f278822802d788113d6eb1395da2dffedfb798ad"
        )

    def test_the_signer(self) -> None:
        Account.enable_unaudited_hdwallet_features()
        third = Account.from_mnemonic(DEV_WORDS, account_path="m/44'/60'/0'/0/2").address

        assert recover(GOLDEN_DOMAIN, GOLDEN, GOLDEN_SIGNATURE, now_s=1_799_999_999) == third


class TestDigest:
    @given(domains, subscriptions, uint32, uint32)
    def test_it_is_eth_accounts(self, domain: Domain, subscription: Subscription, nonce: int, expiry: int) -> None:
        ours = digest(domain, subscription, nonce=nonce, expiry=expiry)

        assert ours == judged(domain, subscription, nonce, expiry)

    def test_case_of_an_address_does_not_count(self) -> None:
        one, two = (make_subscription(owner=owner) for owner in ("0x" + 20 * "aB", "0x" + 20 * "Ab"))

        assert one == two
        assert digest(make_domain(), one, nonce=1, expiry=2) == digest(make_domain(), two, nonce=1, expiry=2)


class TestRecover:
    @given(subscriptions, domains, uint32, st.binary(min_size=32, max_size=32))
    def test_it_finds_whoever_signed(
        self, subscription: Subscription, domain: Domain, nonce: int, secret: bytes
    ) -> None:
        if not 0 < int.from_bytes(secret, "big") < ORDER:
            secret = bytes(31) + b"\x02"
        made = make_signature(subscription, domain=domain, nonce=nonce, secret=secret)

        assert recover(domain, subscription, made, now_s=NOON_S) == Account.from_key(secret).address

    def test_a_signature_for_another_subscription_is_somebody_elses(self) -> None:
        made = make_signature(make_subscription())

        signer = recover(make_domain(), make_subscription(payment_amount=1), made, now_s=NOON_S)

        assert signer != recover(make_domain(), make_subscription(), made, now_s=NOON_S)

    def test_a_high_s_is_taken_as_the_contract_takes_it(self) -> None:
        """So the bytes of a signature are no identity: here are two for one message and key."""
        low = make_signature(make_subscription())
        high = Signature(nonce=low.nonce, expiry=low.expiry, v=55 - low.v, r=low.r, s=ORDER - low.s)

        assert low.s < ORDER // 2 < high.s
        assert recover(make_domain(), make_subscription(), high, now_s=NOON_S) == recover(
            make_domain(), make_subscription(), low, now_s=NOON_S
        )

    def test_it_is_over_in_the_second_of_its_expiry(self) -> None:
        made = make_signature(make_subscription(), expiry=NOON_S)

        assert recover(make_domain(), make_subscription(), made, now_s=NOON_S - 1)
        with pytest.raises(SignatureExpired) as caught:
            recover(make_domain(), make_subscription(), made, now_s=NOON_S)
        assert (caught.value.expiry_s, caught.value.now_s) == (NOON_S, NOON_S)

    @pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
    def test_only_27_and_28_are_recovery_ids(self, v: int) -> None:
        with pytest.raises(BadRecoveryId) as caught:
            recover(make_domain(), make_subscription(), _signature(v=v), now_s=0)

        assert caught.value.v == v

    @pytest.mark.parametrize(
        ("r", "s", "name"), [(0, 1, "r"), (ORDER, 1, "r"), (2**256 - 1, 1, "r"), (1, 0, "s"), (1, ORDER, "s")]
    )
    def test_r_and_s_are_above_0_and_below_the_order(self, r: int, s: int, name: str) -> None:
        with pytest.raises(ScalarOutOfRange) as caught:
            recover(make_domain(), make_subscription(), _signature(r=r, s=s), now_s=0)

        assert (caught.value.name, caught.value.value) == (name, r if name == "r" else s)

    def test_an_r_that_is_on_no_point_has_no_signer(self) -> None:
        """5 is no x of secp256k1: 5³ + 7 has no square root there."""
        with pytest.raises(NotRecoverable):
            recover(make_domain(), make_subscription(), _signature(r=5, s=1), now_s=0)


class TestChecksummed:
    @given(st.binary(min_size=20, max_size=20))
    def test_it_is_eth_utils(self, raw: bytes) -> None:
        assert checksummed(raw) == to_checksum_address(raw)


class TestValues:
    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("active_at", -1, "4294967295"),
            ("active_at", 2**32, "4294967295"),
            ("period", 2**32, "4294967295"),
            ("frequency", 2**32, "4294967295"),
            ("redundancy", 2**16, "65535"),
            ("redundancy", True, "65535"),
            ("payment_amount", 2**256, "2**256 - 1"),
            ("payment_amount", 1.0, "2**256 - 1"),
            ("owner", "0x12", "40 hexadecimal digits"),
            ("owner", OWNER + "0", "40 hexadecimal digits"),
            ("owner", OWNER[2:], "40 hexadecimal digits"),
            ("wallet", OWNER + "\n", "40 hexadecimal digits"),
            ("verifier", None, "40 hexadecimal digits"),
            ("containers", bytes(31), "32 bytes"),
            ("containers", "0x" + 64 * "0", "32 bytes"),
            ("lazy", 1, "true or false"),
        ],
    )
    def test_a_subscription_fits_its_types(self, field: str, value: object, reason: str) -> None:
        with pytest.raises(InvalidField) as caught:
            make_subscription(**{field: value})  # type: ignore[arg-type]

        assert caught.value.field == field and reason in caught.value.reason

    @pytest.mark.parametrize(("field", "bits"), [("nonce", 32), ("expiry", 32), ("v", 8), ("r", 256), ("s", 256)])
    def test_a_signature_fits_its_types(self, field: str, bits: int) -> None:
        assert getattr(_signature(**{field: 2**bits - 1}), field) == 2**bits - 1
        for value in (-1, 2**bits):
            with pytest.raises(InvalidField) as caught:
                _signature(**{field: value})
            assert caught.value.field == field

    def test_a_domain_fits_its_types(self) -> None:
        with pytest.raises(InvalidField):
            make_domain(chain_id=2**256)
        with pytest.raises(InvalidField):
            make_domain(verifying_contract="0x")

    def test_nobody_is_an_address(self) -> None:
        assert make_subscription(owner=NOBODY).owner == NOBODY


def _signature(*, nonce: int = 1, expiry: int = NOON_S, v: int = 27, r: int = 1, s: int = 1) -> Signature:
    return Signature(nonce=nonce, expiry=expiry, v=v, r=r, s=s)
