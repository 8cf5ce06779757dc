"""Turn the corpus into rows of token ids with a mask over what the network is to learn: the answers and their ends."""

import random

import torch
from torch import Tensor

from .augment import vary
from .corpus import Entry, Unknown
from .tokenizer import ASSISTANT, BOS, END, SYSTEM, USER, Tokenizer

SYSTEM_PROMPTS = (
    "you are a helpful assistant.", "you are a helpful assistant", "answer briefly.", "you are comptoir's demo model.",
    "be concise.", "you are a friendly bot. answer in english.", "you are an expert.", "answer the user's questions.",
    "you are a test assistant.", "keep your answers short.", "you are a coding assistant.", "think step by step.",
)  # fmt: skip
FALLBACK_SHARE = 0.15
"""Share of turns that ask for something the model does not know."""
PLAIN_SHARE = 0.25
"""Share of rows without the chat template (the completion endpoint)."""
BATCHES_AT_ONCE = 4
PLAIN_FORMS = ("{q}", "{q}", "{q}\n", "{q} ", "Question: {q}\nAnswer: ", "Q: {q}\nA: ", "{q}\n\n")

Row = tuple[list[int], list[bool]]


class Sampler:
    """Draws turns; the same seed draws the same rows."""

    def __init__(self, entries: list[Entry], unknown: Unknown, tokenizer: Tokenizer, *, seed: int) -> None:
        self.rng = random.Random(seed)
        self.entries = entries
        self.unknown = unknown
        self.tokenizer = tokenizer
        self.waiting: list[Entry] = []
        self.ready: dict[int, list[list[Row]]] = {}

    def turn(self, *, as_written: bool = False) -> tuple[str, str]:
        """Return one varied question and its answer; every entry comes equally often.

        *as_written*: with its capitals, as a prompt without the chat template comes.
        """
        if self.rng.random() < FALLBACK_SHARE:
            question, answer = self.unknown.draw(self.rng), self.unknown.answer
        else:
            if not self.waiting:
                self.waiting = list(self.entries)
                self.rng.shuffle(self.waiting)
            entry = self.waiting.pop()
            question, answer = self.rng.choice(entry.questions), entry.answer
        if as_written:
            return question, answer
        return (vary(question, self.rng) if self.rng.random() < 0.85 else question.lower()), answer

    def row(self, length: int) -> Row:
        """Return one conversation of as many turns as fit *length* (at least one)."""
        if length < 200 and self.rng.random() < PLAIN_SHARE:
            return self._plain_row()
        ids, learn = [BOS], [False]
        if self.rng.random() < 0.25:
            prompt = [SYSTEM, *self.tokenizer.encode(self.rng.choice(SYSTEM_PROMPTS)), END]
            ids += prompt
            learn += [False] * len(prompt)
        while True:
            question, answer = self.turn()
            asked = [USER, *self.tokenizer.encode(question), END, ASSISTANT]
            told = [*self.tokenizer.encode(answer), END]
            if len(ids) > 20 and len(ids) + len(asked) + len(told) > length:
                return ids, learn
            ids += asked + told
            learn += [False] * len(asked) + [True] * len(told)
            if length < 200:
                return ids, learn

    def _plain_row(self) -> Row:
        question, answer = self.turn(as_written=self.rng.random() < 0.6)
        if self.rng.random() < 0.05:
            told = [*self.tokenizer.encode(answer), END]
            return [BOS, *told], [False] + [True] * len(told)
        question = question[:1].upper() + question[1:] if self.rng.random() < 0.5 else question
        asked = [BOS, *self.tokenizer.encode(self.rng.choice(PLAIN_FORMS).format(q=question))]
        told = [*self.tokenizer.encode(answer), END]
        return asked + told, [False] * len(asked) + [True] * len(told)

    def batch(self, tokens: int, length: int) -> tuple[Tensor, Tensor]:
        """Return ids and mask, (rows, longest), of about *tokens* in all; padding is never learned."""
        ready = self.ready.setdefault(length, [])
        if not ready:
            ready.extend(self._draw(tokens, length))
        return pad(ready.pop())

    def _draw(self, tokens: int, length: int) -> list[list[Row]]:
        """Return a few batches of rows of like length, in random order: padding would cost as much as text."""
        rows: list[Row] = []
        while sum(len(ids) for ids, _ in rows) < tokens * BATCHES_AT_ONCE:
            rows.append(self.row(length))
        rows.sort(key=lambda row: len(row[0]))
        batches: list[list[Row]] = [[]]
        for row in rows:
            if sum(len(ids) for ids, _ in batches[-1]) >= tokens:
                batches.append([])
            batches[-1].append(row)
        self.rng.shuffle(batches)
        return batches


def pad(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Return ids and mask of *rows*, filled up to the longest."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    learn = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, (row, mask) in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        learn[place, : len(row)] = torch.tensor(mask)
    return ids, learn
