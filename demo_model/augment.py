"""Vary a question the way people type: prefixes, contractions, synonyms, missing punctuation, small typing errors.

Everything is lower case here, because the model's chat template lowers what users write.
"""

import random
import re

PREFIXES = (
    "please", "hey,", "hi,", "hello,", "ok,", "so", "so,", "well,", "um,", "and", "but", "now", "tell me,",
    "please tell me,",
    "can you tell me", "could you tell me", "i want to know", "i would like to know", "quick question:", "question:",
    "i was wondering,", "do you know", "let me ask:", "good morning,", "hey comptoir,", "sorry,", "just curious,",
)  # fmt: skip
SUFFIXES = (
    "please", "thanks", "for me", "in short", "in one sentence", "exactly", "actually", "then", "here", "again",
    "in simple words", "briefly", "by the way", "thank you",
)  # fmt: skip
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("what is", "what's", "whats", "explain", "describe", "define", "what exactly is", "tell me about"),
    ("what are", "explain", "describe", "tell me about", "what exactly are"),
    ("how do i", "how can i", "how to", "how would i", "how should i", "what is the way to", "how do you"),
    ("how does", "in what way does", "explain how does"),
    ("can i", "could i", "may i", "is it possible to", "am i able to", "am i allowed to"),
    ("why is", "why's", "for what reason is", "how come"),
    ("buyer", "customer", "client", "purchaser"),
    ("buyers", "customers", "clients"),
    ("host", "gpu host", "provider", "gpu owner", "host owner"),
    ("hosts", "gpu hosts", "providers", "gpu owners"),
    ("price", "cost", "rate"),
    ("cost", "price"),
    ("job", "request", "task"),
    ("jobs", "requests", "tasks"),
    ("answer", "reply", "response"),
    ("money", "funds", "cash"),
    ("start", "launch", "run", "boot"),
    ("use", "work with", "try"),
    ("get", "obtain", "receive"),
    ("happens", "occurs", "goes on"),
    ("if", "when", "in case"),
    ("dies", "crashes", "fails", "goes down", "disappears"),
    ("comptoir", "this", "comptoir", "this thing", "the trading post"),
    ("does not", "doesn't", "doesnt"),
    ("do not", "don't", "dont"),
    ("cannot", "can't", "cant", "can not"),
    ("i am", "i'm", "im"),
    ("need", "require", "have to have"),
    ("write", "compose", "make", "give me"),
    ("tell me", "give me", "say"),
    ("computer", "machine", "pc"),
    ("my", "my own", "the"),
)  # fmt: skip
DROPPABLE = frozenset(
    {"the", "a", "an", "is", "are", "do", "does", "i", "of", "to", "me", "my", "for", "it", "with", "you"}
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def vary(question: str, rng: random.Random) -> str:
    """Return *question* as somebody else might type it (lower case)."""
    text = question.lower().strip()
    end = text[-1] if text[-1:] in "?.!" else ""
    text = text[: len(text) - len(end)] if end else text
    text = _synonyms(text, rng)
    if rng.random() < 0.08:
        text = _drop_word(text, rng)
    if rng.random() < 0.22:
        text = f"{rng.choice(PREFIXES)} {text}"
    if rng.random() < 0.1:
        text = f"{text}{rng.choice((' ', ', '))}{rng.choice(SUFFIXES)}"
    if rng.random() < 0.12:
        text = _typing_error(text, rng)
    if rng.random() < 0.1:
        text = text.replace(",", "").replace("'", "")
    chance = rng.random()
    if chance < 0.55:
        return text + end
    if chance < 0.9:
        return text
    return text + rng.choice(("?", "??", "!", ".", "...", " ?", "?!"))


def _synonyms(text: str, rng: random.Random) -> str:
    if rng.random() < 0.45:
        return text
    for group in SYNONYMS:
        for word in group:
            if rng.random() < 0.3 and word in text and re.search(rf"\b{re.escape(word)}\b", text):
                text = re.sub(rf"\b{re.escape(word)}\b", rng.choice(group), text, count=1)
                break
    return text


def _drop_word(text: str, rng: random.Random) -> str:
    words = text.split()
    places = [place for place, word in enumerate(words) if word in DROPPABLE]
    if len(words) < 5 or not places:
        return text
    del words[rng.choice(places)]
    return " ".join(words)


def _typing_error(text: str, rng: random.Random) -> str:
    if len(text) < 8:
        return text
    place = rng.randrange(1, len(text) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:place] + text[place + 1 :]
    if kind == 1:
        return text[:place] + text[place] + text[place:]
    if kind == 2:
        return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text[:place] + rng.choice(LETTERS) + text[place + 1 :]
