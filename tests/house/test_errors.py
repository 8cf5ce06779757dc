"""docs/errors.md says what the code says; that each refusal has a status everywhere is
tests/dialects/test_conformance.py."""

from tools import error_table


class TestPage:
    def test_it_says_what_the_code_says(self) -> None:
        """Mend it with ``python -m tools.error_table``."""
        text = error_table.PAGE.read_text()

        assert text == error_table.page(text)

    def test_every_refusal_of_a_room_is_in_it(self) -> None:
        error_table.load_all()
        text = error_table.PAGE.read_text()
        leaves = {one for one in error_table.refusals() if not one.__subclasses__()}

        assert len(leaves) > 30
        assert {error_table.name_of(one) for one in leaves if error_table.name_of(one) not in text} == set()
