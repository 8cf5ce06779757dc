"""What people read is true: every `make` word says what it does, every link inside the repository leads somewhere."""

import re

import pytest

from tests.house import tree

TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)(.*)$", re.MULTILINE)
INTERNAL = {"venv-run", "venv-dev"}
"""Steps of other words, not for people."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def unexplained(makefile: str) -> list[str]:
    """Return the targets of *makefile* without a sentence after ``##``."""
    found = TARGET.findall(makefile)
    return [name for name, rest in found if name not in INTERNAL and not re.search(r"## [A-Z].*\.$", rest)]


def unphony(makefile: str) -> list[str]:
    """Return the targets that a file of the same name would silence."""
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    declared = set(phony[1].split()) if phony else set()
    return [name for name, _ in TARGET.findall(makefile) if name not in declared]


def dead_links(path: str, text: str) -> list[str]:
    """Return the relative links of a Markdown file that lead nowhere; code blocks are not read."""
    folder = (tree.ROOT / path).parent
    targets = LINK.findall(FENCE.sub("", text))
    return [target for target in targets if "://" not in target and not (folder / target).exists()]


class TestMakefile:
    makefile = (tree.ROOT / "Makefile").read_text()

    def test_every_word_says_what_it_does(self) -> None:
        assert "check" in {name for name, _ in TARGET.findall(self.makefile)}
        assert unexplained(self.makefile) == []

    def test_every_word_runs_whatever_files_there_are(self) -> None:
        assert unphony(self.makefile) == []

    def test_a_word_without_help_is_found(self) -> None:
        assert unexplained("up: venv-run ## Start.\ntest: venv-dev\nlint: ## no sentence\n") == ["test", "lint"]

    def test_a_word_that_is_not_phony_is_found(self) -> None:
        assert unphony(".PHONY: up\nup: ## Start.\ntest: ## Test.\n") == ["test"]


def reachable(start: str) -> set[str]:
    """Return the pages that a reader of *start* can come to by links."""
    found, waiting = {start}, [start]
    while waiting:
        path = waiting.pop()
        for target in LINK.findall(FENCE.sub("", (tree.ROOT / path).read_text())):
            if "://" in target or not target.endswith(".md"):
                continue
            place = (tree.ROOT / path).parent.joinpath(target).resolve()
            page = str(place.relative_to(tree.ROOT))
            if page not in found and place.exists():
                found.add(page)
                waiting.append(page)
    return found


class TestLinks:
    def test_every_page_of_docs_can_be_come_to_from_the_readme(self) -> None:
        pages = {path for path in tree.files() if path.startswith("docs/") and path.endswith(".md")}

        assert pages - reachable("README.md") == set()

    def test_every_link_leads_somewhere(self) -> None:
        pages = [path for path in tree.files() if path.endswith(".md")]
        dead = {path: dead_links(path, (tree.ROOT / path).read_text()) for path in pages}

        assert "README.md" in pages
        assert {path: links for path, links in dead.items() if links} == {}

    @pytest.mark.parametrize(
        ("text", "dead"),
        [
            ("[a](docs/nowhere.md)", ["docs/nowhere.md"]),
            ("[a](nowhere.md#part)", ["nowhere.md"]),
            ("[a](Makefile) [b](https://example.com/x) [c](#here)", []),
            ("```\n[a](nowhere.md)\n```", []),
        ],
    )
    def test_a_dead_link_is_found(self, text: str, dead: list[str]) -> None:
        assert dead_links("README.md", text) == dead
