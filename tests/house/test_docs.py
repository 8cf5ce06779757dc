"""What people read is true: every `make` word says what it does, every link inside the repository leads somewhere."""

import re

import pytest

from tests.house import tree

TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)(.*)$", re.MULTILINE)
INTERNAL = {"venv-run", "venv-dev"}
"""Steps of other words, not for people."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
LINK_TEXT = re.compile(r"\[([^\]]*)\]\([^)]*\)")
ANCHORED = re.compile(r"\]\(([^)\s#]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


PROSE_CHARS_MAX = 120
"""Longest line of prose in Markdown; tables, code, headings and a link that can't be broken may be longer."""

FROM_BEFORE = re.compile(r"docs/decisions/00[0-2]\d-|demo_model/corpus/")
"""Decisions from before the limit, which are never edited, and the demo model's training text, whose lines are its
answers."""


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


def long_prose(text: str) -> list[int]:
    """Return the numbers of the lines of prose that are too long and could be wrapped."""
    found, fence = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if fence:
            fence = "" if words.startswith(fence) else fence
        elif words.startswith(("```", "~~~")):
            fence = words[:3]
        elif len(line) > PROSE_CHARS_MAX and not words.startswith(("|", "#", "![", "<!--")) and " " in words[2:]:
            found.append(number)
    return found


def anchor_of(heading: str) -> str:
    """Return what a link to *heading* says after ``#``, as GitHub spells it."""
    return re.sub(r"[^\w\- ]", "", LINK_TEXT.sub(r"\1", heading).strip().lower()).replace(" ", "-")


def lost_anchors(path: str, text: str) -> list[str]:
    """Return the links of a Markdown file to parts of pages that have no such heading."""
    lost = []
    for target, anchor in ANCHORED.findall(FENCE.sub("", text)):
        page = (tree.ROOT / path).parent / target if target else tree.ROOT / path
        if "://" in target or not page.exists() or page.suffix != ".md":
            continue
        if anchor not in {anchor_of(heading) for heading in HEADING.findall(FENCE.sub("", page.read_text()))}:
            lost.append(f"{target}#{anchor}")
    return lost


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

    def test_every_part_that_a_link_names_has_its_heading(self) -> None:
        pages = [path for path in tree.files() if path.endswith(".md")]
        lost = {path: lost_anchors(path, (tree.ROOT / path).read_text()) for path in pages}

        assert {path: links for path, links in lost.items() if links} == {}

    @pytest.mark.parametrize(
        ("text", "lost"),
        [
            ("[a](CONTRIBUTING.md#nowhere)", ["CONTRIBUTING.md#nowhere"]),
            ("[a](#nothing-here)\n\n## Something here\n", ["#nothing-here"]),
            ("[a](CONTRIBUTING.md#commits)", []),
        ],
    )
    def test_a_lost_part_is_found(self, text: str, lost: list[str]) -> None:
        assert lost_anchors("README.md", text) == lost


class TestProse:
    def test_every_line_can_be_read_without_scrolling(self) -> None:
        pages = [path for path in tree.files() if path.endswith(".md") and not FROM_BEFORE.match(path)]
        long = {path: long_prose((tree.ROOT / path).read_text()) for path in pages}

        assert len(pages) > 30
        assert {path: lines for path, lines in long.items() if lines} == {}

    @pytest.mark.parametrize(
        ("text", "lines"),
        [
            ("word " * 24 + "\n" + "word " * 25, [2]),
            ("- " + "word " * 30, [1]),
            ("| " + "word | " * 30, []),
            ("```\n" + "word " * 30 + "\n```\n" + "word " * 30, [4]),
            ("- https://example.com/" + "a" * 120, []),
        ],
    )
    def test_a_long_line_is_found(self, text: str, lines: list[int]) -> None:
        assert long_prose(text) == lines
