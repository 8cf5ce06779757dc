"""Terms: what is held for an order of one part or several, and what each part of a chain is asked for."""

import pytest

from comptoir.kinds import Ask, Part, agree
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


class TestContainerParts:
    def test_the_first_lets_the_caller_in_and_the_last_proves_the_result(self) -> None:
        parts = ContainerChain().parts(Ask("a", b"{}", 3, stages=("a", "b", "c"), proof=True))

        assert [(part.enters, part.proof) for part in parts] == [(True, False), (False, False), (False, True)]
