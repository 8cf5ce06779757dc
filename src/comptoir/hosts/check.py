"""Checks of registrations and offers; the error names the first wrong field and its limit."""

import ipaddress
import math
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

from comptoir.hosts.types import PUSH, TRANSPORTS, NewHost
from comptoir.kinds import Chat, Completion, Kinds
from comptoir.kit.errors import InvalidField
from comptoir.kit.money import (
    PRICE_UUSD_PER_MTOK_MAX,
    price_from_usd_per_token,
)
from comptoir.kit.urlguard import UrlGuard
from comptoir.link import ContainerCard, ModelOffer, Pulse
from comptoir.routing import Capacity

GPU_CHARS_MAX = 200
WORD_CHARS_MAX = 64
"""Backend, region, tier."""
MODELS_MAX = 256
MODEL_CHARS_MAX = 256
KINDS_MAX = 16
CAPABILITIES_MAX = 16
SLOTS_MAX = 4096
CONTEXT_TOKENS_MAX = 100_000_000
VRAM_MIB_MAX = 1 << 30
CAPACITY_MAX = 1 << 40
PUBLIC_KEY_BYTES = 32
KINDS_DEFAULT = (Chat.name, Completion.name)
CARD_CHARS_MAX = 2000
"""Description, image."""
CARD_LIST_MAX = 1000
"""Networks, addresses, assets."""
NETWORK_CHARS_MAX = 64
ADDRESS_CHARS_MAX = 64
RUN_TIMEOUT_S_MAX = 86_400.0
RATE_REQUESTS_MAX = 1_000_000
RATE_PERIOD_S_MAX = 86_400.0
NAME_WORDS = (
    "must be letters and signs that look like no others, without spaces at its ends: ASCII, accented Latin, Chinese, Japanese, "
    "Korean, composed (NFKC)"
)
"""Names of models and containers are bought by what they look like: a Cyrillic а in llama is another model's."""
NAME_SCRIPTS = ("CJK UNIFIED", "HIRAGANA", "KATAKANA LETTER", "HANGUL SYLLABLE")
"""How Unicode's names begin of letters that nobody takes for Latin ones."""
_AMOUNT = re.compile(r"[0-9]{1,78}")
"""Decimal text of an unsigned 256-bit number; only its length is checked."""


def check_host(new: NewHost, guard: UrlGuard, kinds: Kinds) -> None:
    """Check that *new* may be registered.

    Raises:
        InvalidField: a field is out of bounds, or the endpoint URL may not be called (its name is resolved at connect).
    """
    _length("gpu", new.gpu, least=1, most=GPU_CHARS_MAX)
    check_offer(new.models, new.slots, kinds)
    for field, value in (
        ("backend", new.backend),
        ("region", new.region),
        ("tier", new.tier),
        ("speaks", new.speaks or ""),
    ):
        _length(field, value, least=0, most=WORD_CHARS_MAX)
    _between("vram_mib", new.vram_mib, 0, VRAM_MIB_MAX)
    for field in Capacity.__struct_fields__:
        _between(field, getattr(new.capacity, field), 0, CAPACITY_MAX)
    if new.transport not in TRANSPORTS:
        raise InvalidField("transport", f"must be one of {', '.join(TRANSPORTS)}")
    if new.endpoint_url is not None:
        guard.check("endpoint_url", new.endpoint_url)
    elif new.transport == PUSH:
        raise InvalidField("endpoint_url", "is needed for a host that jobs are pushed to")
    if new.public_key is not None and len(new.public_key) != PUBLIC_KEY_BYTES:
        raise InvalidField("public_key", f"must be {PUBLIC_KEY_BYTES} bytes")


def believable(pulse: Pulse) -> Pulse:
    """Return *pulse* with what no machine has left out: a sign of life counts, whatever else it says."""
    return Pulse(
        pulse.gpu_utilization if 0.0 <= pulse.gpu_utilization <= 1.0 else 0.0,
        pulse.running if 0 <= pulse.running <= SLOTS_MAX else 0,
        pulse.gpu if len(pulse.gpu) <= GPU_CHARS_MAX and not _has_control(pulse.gpu) else "",
        pulse.vram_mib if 0 <= pulse.vram_mib <= VRAM_MIB_MAX else 0,
    )


def check_offer(models: tuple[ModelOffer, ...], slots: int, kinds: Kinds) -> None:
    """Check that a host may offer *models* on *slots*.

    Raises:
        InvalidField: too few, too many, named twice, a price or a length out of bounds, or an offer by which a kind
            can't be sold.
    """
    _between("slots", slots, 1, SLOTS_MAX)
    if not 1 <= len(models) <= MODELS_MAX:
        raise InvalidField("models", f"must be 1 to {MODELS_MAX} models, not {len(models)}")
    if len({offer.name for offer in models}) < len(models):
        raise InvalidField("models", "must name every model once")
    for at, offer in enumerate(models):
        field = f"models[{at}]"
        _length(field, offer.name, least=1, most=MODEL_CHARS_MAX)
        if not _is_clear(offer.name):
            raise InvalidField(field, NAME_WORDS)
        if not 1 <= len(offer.kinds) <= KINDS_MAX or not all(1 <= len(k) <= WORD_CHARS_MAX for k in offer.kinds):
            raise InvalidField(field, f"must have 1 to {KINDS_MAX} kinds of 1 to {WORD_CHARS_MAX} characters")
        _texts(f"{field}.capabilities", [*offer.capabilities, *offer.capabilities.values()], most=WORD_CHARS_MAX)
        if len(offer.capabilities) > CAPABILITIES_MAX:
            raise InvalidField(f"{field}.capabilities", f"must name at most {CAPABILITIES_MAX}")
        _between(f"{field}.context_tokens", offer.context_tokens, 1, CONTEXT_TOKENS_MAX)
        _check_prices(field, offer, kinds)
        _length(f"{field}.fingerprint", offer.fingerprint, least=0, most=MODEL_CHARS_MAX)
        if offer.container is not None:
            _check_card(f"{field}.container", offer.container)


def _check_prices(field: str, offer: ModelOffer, kinds: Kinds) -> None:
    sold = kinds.sold(offer)
    # The price of a kind that is not sold here does not matter.
    most_out = min([kind.output.rate_max for kind in sold], default=PRICE_UUSD_PER_MTOK_MAX)
    into = [kind.input.rate_max for kind in sold if kind.input is not None]
    most_in = min(into, default=PRICE_UUSD_PER_MTOK_MAX)
    rate_in, rate_out = kinds.rates(offer)
    for price_in in (offer.price_in_uusd_per_mtok, rate_in):
        _between(f"{field}.price_in", price_in, 0, most_in)
    for price_out in (offer.price_out_uusd_per_mtok, rate_out):
        _between(f"{field}.price_out", price_out, 0, most_out)
    if fault := kinds.offer_fault(offer):
        raise InvalidField(field, fault)


def _check_card(field: str, card: ContainerCard) -> None:
    _length(f"{field}.description", card.description, least=0, most=CARD_CHARS_MAX)
    _length(f"{field}.image", card.image, least=0, most=CARD_CHARS_MAX)
    _above_zero(f"{field}.timeout_s", card.timeout_s, RUN_TIMEOUT_S_MAX)
    _between(f"{field}.rate_requests", card.rate_requests, 0, RATE_REQUESTS_MAX)
    _above_zero(f"{field}.rate_period_s", card.rate_period_s, RATE_PERIOD_S_MAX)
    _texts(f"{field}.allowed_ips", card.allowed_ips, most=NETWORK_CHARS_MAX)
    for text in card.allowed_ips:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise InvalidField(f"{field}.allowed_ips", f"must be networks: {error}") from error
    _texts(f"{field}.accepted_payments", card.accepted_payments, most=ADDRESS_CHARS_MAX)
    if not all(_AMOUNT.fullmatch(amount) for amount in card.accepted_payments.values()):
        raise InvalidField(f"{field}.accepted_payments", "must be amounts as decimal text")
    _texts(f"{field}.allowed_addresses", card.allowed_addresses, most=ADDRESS_CHARS_MAX)
    _texts(f"{field}.allowed_delegate_addresses", card.allowed_delegate_addresses, most=ADDRESS_CHARS_MAX)


def offers_of(names: list[str], price_usd_per_token: Decimal, *, context_tokens: int = 4096) -> tuple[ModelOffer, ...]:
    """Make text-only offers from model names and one price per answer token, as in the published registration.

    Raises:
        InvalidField: the price is negative, above one dollar, or has too many decimals. `check_host` checks the names.
    """
    try:
        price = price_from_usd_per_token(price_usd_per_token)
    except ValueError as error:
        raise InvalidField("price_per_token", str(error)) from error
    return tuple(
        ModelOffer(name, list(KINDS_DEFAULT), context_tokens, price_out_uusd_per_mtok=price, text_only=True)
        for name in names
    )


def _length(field: str, value: str, *, least: int, most: int) -> None:
    if not least <= len(value) <= most:
        raise InvalidField(field, f"must be {least} to {most} characters, not {len(value)}")
    if _has_control(value):
        raise InvalidField(field, "must not contain control characters")


def _is_clear(name: str) -> bool:
    """Tell whether a name can't be mistaken for another: printable, composed, no letters of look-alike scripts."""
    if name.isascii():
        return name.isprintable() and name == name.strip()
    if name != unicodedata.normalize("NFKC", name) or name != name.strip() or not name.isprintable():
        return False
    return all(one.isascii() or _is_clear_letter(one) for one in name)


def _is_clear_letter(letter: str) -> bool:
    if unicodedata.name(letter, "").startswith(NAME_SCRIPTS):
        return True
    parts = unicodedata.normalize("NFD", letter)
    return parts[0].isascii() and parts[0].isalpha() and all(unicodedata.combining(mark) for mark in parts[1:])


def _has_control(value: str) -> bool:
    """Find control characters: PostgreSQL refuses NUL, terminals act on others, a lone surrogate has no UTF-8."""
    return any(ord(character) < 32 or 0xD800 <= ord(character) <= 0xDFFF for character in value)


def _texts(field: str, values: Iterable[str], *, most: int) -> None:
    listed = list(values)
    if len(listed) > CARD_LIST_MAX:
        raise InvalidField(field, f"must be at most {CARD_LIST_MAX}, not {len(listed)}")
    for value in listed:
        _length(field, value, least=1, most=most)


def _above_zero(field: str, value: float, most: float) -> None:
    if not (math.isfinite(value) and 0 < value <= most):
        raise InvalidField(field, f"must be above 0 and at most {most:g}, not {value:g}")


def _between(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidField(field, f"must be {least} to {most}, not {value}")
