"""Read the demo model's corpus: questions with their paraphrases and answers, and the questions it should not know.

``corpus/*.md`` holds entries of ``Q:`` lines (trained), ``T:`` lines (held out, only measured) and one ``A:`` line;
``corpus/paraphrases.txt`` has more ways to ask, one line an entry: a question of the entry, then others, separated by
bars. ``corpus/unknown.json`` holds templates and word lists for questions whose answer is the polite fallback.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Entry:
    """One answer and the ways to ask for it."""

    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Unknown:
    """Questions outside the corpus: every template filled with any word of its slots."""

    answer: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    templates: tuple[str, ...]
    slots: dict[str, list[str]]

    def draw(self, rng: random.Random) -> str:
        """Return one question nobody wrote an answer for."""
        if rng.random() < 0.3:
            return rng.choice(self.questions)
        text = rng.choice(self.templates)
        for name, words in self.slots.items():
            while "{" + name + "}" in text:
                text = text.replace("{" + name + "}", rng.choice(words), 1)
        return text


def read_entries(folder: Path = FOLDER) -> list[Entry]:
    """Return every entry of every Markdown file, in file order.

    Raises:
        ValueError: an entry has no question or no answer, or a question stands twice.
    """
    entries: list[Entry] = []
    for path in sorted(folder.glob("*.md")):
        entries.extend(_parse(path))
    entries = _with_paraphrases(entries, folder / "paraphrases.txt")
    seen: set[str] = set()
    for entry in entries:
        for question in entry.questions + entry.held_out:
            if question.lower() in seen:
                raise ValueError(f"question stands twice in the corpus: {question}")
            seen.add(question.lower())
    return entries


def _with_paraphrases(entries: list[Entry], path: Path) -> list[Entry]:
    more: dict[str, tuple[str, ...]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        first, *others = (text.strip() for text in line.split(" | "))
        more[first] = tuple(others)
    full: list[Entry] = []
    for entry in entries:
        others = more.pop(next((question for question in entry.questions if question in more), ""), ())
        full.append(Entry(entry.questions + others, entry.held_out, entry.answer))
    if more:
        raise ValueError(f"{path.name}: no entry has the question {next(iter(more))}")
    return full


def _parse(path: Path) -> list[Entry]:
    entries: list[Entry] = []
    questions: list[str] = []
    held_out: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        kind, _, text = line.partition(": ")
        if kind == "Q":
            questions.append(text.strip())
        elif kind == "T":
            held_out.append(text.strip())
        elif kind == "A":
            if not questions or not text.strip():
                raise ValueError(f"{path.name}:{number}: an answer needs a question and a text")
            entries.append(Entry(tuple(questions), tuple(held_out), text.strip().replace("\\n", "\n")))
            questions, held_out = [], []
    if questions:
        raise ValueError(f"{path.name}: the last question has no answer")
    return entries


def read_unknown(folder: Path = FOLDER) -> Unknown:
    """Return the questions outside the corpus and their one answer."""
    raw = json.loads((folder / "unknown.json").read_text(encoding="utf-8"))
    return Unknown(
        raw["answer"], tuple(raw["questions"]), tuple(raw["held_out"]), tuple(raw["templates"]), dict(raw["slots"])
    )


def corpus_sha256(folder: Path = FOLDER) -> str:
    """Return the SHA-256 (hex) over the names and bytes of all corpus files; it goes into the model's metadata."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.md"), *folder.glob("*.txt"), *folder.glob("*.json")]):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()
