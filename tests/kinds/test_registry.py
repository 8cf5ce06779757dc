"""The registry of kinds: what may be registered, what an offer may be, and what the shipped kinds say of themselves."""

from typing import ClassVar

import pytest

from comptoir.kinds import (
    BUILT_IN,
    RUN,
    TOKEN_IN,
    TOKEN_OUT,
    Ask,
    ContainerChain,
    Kind,
    Kinds,
    KindsError,
    Part,
    Resume,
    Unit,
    UnknownKind,
    load_kinds,
)
from comptoir.link import COUNT_MAX, ContainerCard, ModelOffer

BYTE = Unit("byte", "byte", "bytes", 1_000, "kilobyte")


class Toy(Kind):
    """Sold by the kilobyte."""

    name = "toy"
    output = BYTE


class Capital(Kind):
    """Its name is none."""

    name = "Toy"
    output = BYTE


class OtherByte(Kind):
    """Means something else by a byte."""

    name = "other"
    output: ClassVar[Unit] = Unit("byte", "octet", "octets")


class NoUnit(Kind):
    """Its unit's name is none."""

    name = "no_unit"
    output = Unit("per cent", "per cent", "per cent")


class TestKinds:
    @pytest.mark.parametrize(
        "kinds", [(Toy, Toy), (Capital,), (Toy, OtherByte), (NoUnit,)], ids=lambda kinds: kinds[-1].__name__
    )
    def test_what_contradicts_itself_is_refused(self, kinds: tuple[type[Kind], ...]) -> None:
        with pytest.raises(KindsError):
            Kinds(kinds)

    def test_one_that_is_not_sold_is_refused_by_name_and_shown_when_it_is_stored(self) -> None:
        kinds = Kinds(BUILT_IN[:4])

        with pytest.raises(UnknownKind, match="must be one of chat, completion, container, embedding, not 'toy'"):
            kinds.get("toy")
        stored = kinds.stored("toy")
        assert (stored.name, stored.resume(None)) == ("toy", Resume.NEVER)  # type: ignore[arg-type]

    def test_a_unit_that_nobody_here_knows_counts_one_by_one(self) -> None:
        assert Kinds().unit("furlong").format(3) == "3 furlong"

    @pytest.mark.parametrize("kind", list(Kinds()), ids=lambda kind: kind.name)
    def test_what_ships_has_its_words(self, kind: Kind) -> None:
        for unit in kind.units:
            assert unit.format(unit.shown) == f"1 {unit.one}" and unit.quoted
            assert unit.format(2_000 * unit.shown) == f"2,000 {unit.many}"

    def test_what_shipped_once_ships_on(self) -> None:
        """Stored jobs are of it; a new one comes behind."""
        assert [kind.name for kind in BUILT_IN[:4]] == ["chat", "completion", "embedding", "container"]


class TestLoad:
    def test_a_kind_is_added_by_its_name(self) -> None:
        kinds = load_kinds([f"{__name__}:Toy"])

        assert kinds.get("toy").output == BYTE and "chat" in kinds

    @pytest.mark.parametrize("target", ["nowhere.at_all:Kind", f"{__name__}:Missing", f"{__name__}:BYTE", "no colon"])
    def test_what_is_no_kind_is_refused(self, target: str) -> None:
        with pytest.raises(KindsError):
            load_kinds([target])


OFFERS: list[tuple[ModelOffer, dict[str, int], str]] = [
    (ModelOffer("m", ["chat"], 4096, 3, 5), {"token_in": 3, "token_out": 5}, ""),
    (
        ModelOffer("m", ["chat"], 4096, 3, 5, prices={"token_in": 7, "token_out": 9}),
        {"token_in": 7, "token_out": 9},
        "",
    ),
    (ModelOffer("m", ["chat", "completion"], prices={"token_out": 9}), {"token_in": 0, "token_out": 9}, ""),
    (ModelOffer("m", ["toy"], prices={"byte": 2}), {"byte": 2}, ""),
    (ModelOffer("m", ["chat", "toy"]), {"token_in": 0, "token_out": 0}, "sold in the same units"),
    (ModelOffer("m", ["toy"], prices={"token_out": 2}), {"byte": 0}, "priced by byte, not by 'token_out'"),
    (ModelOffer("m", ["future"], 4096, 3, 5), {}, ""),
    (ModelOffer("m", ["future"], container=ContainerCard()), {}, "container's card"),
    (ModelOffer("m", ["chat"], container=ContainerCard()), {"token_in": 0, "token_out": 0}, "container's card"),
    (ModelOffer("m", ["container"], 1, 0, 10**9, container=ContainerCard()), {"run": 10**9}, ""),
    (ModelOffer("m", ["container"]), {"run": 0}, "must have a container's card"),
]


class TestOffers:
    @pytest.mark.parametrize(("offer", "prices", "fault"), OFFERS)
    def test_prices_and_faults(self, offer: ModelOffer, prices: dict[str, int], fault: str) -> None:
        kinds = Kinds((*BUILT_IN, Toy))

        assert kinds.prices(offer) == prices
        found = kinds.offer_fault(offer)
        assert (fault in found) if fault else found == ""


class TestUnits:
    @pytest.mark.parametrize(
        ("count", "said"),
        [
            (0, "0 seconds"),
            (1, "0.001 seconds"),
            (1_000, "1 second"),
            (1_200, "1.2 seconds"),
            (600_000, "600 seconds"),
            (COUNT_MAX, "2,147,483.647 seconds"),
        ],
    )
    def test_of_milliseconds_is_shown_in_seconds(self, count: int, said: str) -> None:
        unit = Unit("wall_ms", "second", "seconds", 3_600_000, "hour", shown=1_000)

        assert (unit.format(count), unit.priced) == (said, "per hour")
        assert unit.price_uusd(1_000_000) == 3_600_000

    def test_the_shipped_ones_are_named_as_receipts_name_them(self) -> None:
        assert [unit.name for unit in (TOKEN_IN, TOKEN_OUT, RUN)] == ["token_in", "token_out", "run"]


class Nameless(Kind):
    """Has no name."""

    output = BYTE


class Unitless(Kind):
    """Has no unit of what comes out."""

    name = "unitless"


class Dear(Kind):
    """A price of it, for as many as one message may count, would not fit the database."""

    name = "dear"
    output = Unit("pearl", "pearl", "pearls", 1, rate_max=10**16)


class SameBothWays(Kind):
    """An offer has one price for a unit, whichever way it goes."""

    name = "same"
    input = BYTE
    output = BYTE


class StagesWithInput(ContainerChain):
    """Stages have no price of what goes in."""

    name = "stages_in"
    input = BYTE


class HalfStaged(Kind):
    """Has stages, and does not say at which a job is."""

    name = "half_staged"
    output = BYTE
    staged = True

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        return (Part("a"), Part("b"))


class TestWhatNobodyCounts:
    @pytest.mark.parametrize(
        ("kind", "why"),
        [
            (Nameless, "has no name"),
            (Unitless, "has no output"),
            (Dear, "the unit 'pearl' of the kind 'dear' is none"),
            (SameBothWays, "needs another unit for what goes in"),
            (StagesWithInput, "is paid for what goes in"),
            (HalfStaged, "does not say its part:"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_it_is_refused_where_it_is_registered(self, kind: type[Kind], why: str) -> None:
        with pytest.raises(KindsError, match=why):
            load_kinds((f"tests.kinds.test_registry:{kind.__name__}",))
