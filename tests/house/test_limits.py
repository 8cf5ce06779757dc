"""docs/limits.md lists every bound as the code has it."""

import re

from tools import limits_page

from tests.house import tree


class TestPage:
    def test_it_says_what_the_code_says(self) -> None:
        """Mend it with ``python -m tools.limits_page``."""
        assert limits_page.PAGE.read_text() == limits_page.page()

    def test_every_bound_of_the_code_is_in_it(self) -> None:
        """Found another way: by reading lines, not by parsing."""
        line = re.compile(r"^([A-Z][A-Z0-9_]*_(?:MAX|S|BYTES))(?:: [^=]+)? = ", re.MULTILINE)
        files = [path for path in tree.python_files() if path.startswith("src/comptoir/")]
        found = {name for path in files for name in line.findall((tree.ROOT / path).read_text())}
        text = limits_page.PAGE.read_text()

        assert len(found) > 50
        assert {name for name in found if f"`{name}`" not in text} == set()
