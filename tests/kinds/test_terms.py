"""Terms: what is held for an order of one part or several, and what each part of a chain is asked for."""

import pytest

from comptoir.kinds import Ask, Part, Terms, agree, extended
from comptoir.kinds.containers import ContainerChain
from comptoir.kinds.terms import hold_of


class TestHoldOf:
    @pytest.mark.parametrize(
        ("part", "rates", "hold"),
        [
            (Part("m", input_max=1), (1, 0), 1),
            (Part("m", input_max=3, output_max=2), (500_000, 250_001), 3),
            (Part("m", input_max=3, output_max=2), (500_000, 250_000), 2),
            (Part("m"), (1, 1), 0),
        ],
    )
    def test_it_is_rounded_up_once(self, part: Part, rates: tuple[int, int], hold: int) -> None:
        assert hold_of(part, rates) == hold


class TestAgree:
    def test_several_parts_are_held_for_each_and_capped_by_the_dearest(self) -> None:
        parts = [Part("a", output_max=1), Part("b", output_max=1)]

        terms = agree(parts, [(0, 2_000_000), (0, 5_500_000)], output_max=2)

        assert (terms.hold_uusd, terms.rate_out, terms.output_max) == (2 + 6, 5_500_000, 2)


class TestExtended:
    STEP = 2_048

    @pytest.mark.parametrize(
        ("bound", "due", "then"),
        [(2_048, 1_024, 4_096), (8_192, 7_168, 10_240), (8_196, 7_172, 10_245), (40_000, 35_000, 50_000)],
    )
    def test_it_is_raised_by_what_it_began_with_or_a_quarter(self, bound: int, due: int, then: int) -> None:
        terms = Terms(output_max=bound, grows_by=self.STEP)

        assert (terms.due, terms.next_max) == (due, then)

    @pytest.mark.parametrize(
        ("rates", "most_uusd", "bound", "hold_uusd"),
        [
            ((0, 2_000_000), 100, 20, 40),
            ((0, 2_000_000), 35, 17, 34),
            ((0, 2_000_000), 20, 10, 20),
            ((0, 2_000_000), 21, 10, 20),
            ((1_000_000, 2_000_000), 45, 20, 45),
            ((1_000_000, 2_000_000), 44, 19, 43),
            ((0, 1), 20, 20, 20),
            ((0, 1_000_001), 20, 19, 20),
            ((0, 0), 20, 20, 20),
            ((9_000_000, 0), 20, 20, 20),
        ],
    )
    def test_as_far_as_the_credit_covers_at_these_prices(
        self, rates: tuple[int, int], most_uusd: int, bound: int, hold_uusd: int
    ) -> None:
        terms = extended(Terms(5, 10, 0, 2_000_000, 20, 10), rates, output_max=20, most_uusd=most_uusd)

        assert (terms.output_max, terms.hold_uusd) == (bound, hold_uusd)
        assert terms.hold_uusd <= most_uusd


class TestContainerParts:
    def test_the_first_lets_the_caller_in_and_the_last_proves_the_result(self) -> None:
        parts = ContainerChain().parts(Ask("a", b"{}", 3, stages=("a", "b", "c"), proof=True))

        assert [(part.enters, part.proof) for part in parts] == [(True, False), (False, False), (False, True)]
