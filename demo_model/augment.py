"""Vary a question the way people type: other shapes, prefixes, synonyms, missing punctuation, small typing errors.

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
REFRAMED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"(?:what is|what are|explain|describe|define|tell me about) (?:an? |the )?(.+)",
        (
            "{0}", "{0} explained", "meaning of {0}", "what does {0} mean", "i do not understand {0}",
            "what do you mean by {0}",
            "can you explain {0}", "could you explain what {0} is", "give me a definition of {0}",
            "how would you describe {0}",
            "what exactly is {0}", "what is meant by {0}", "what do you call {0}", "i have never heard of {0}",
            "explain {0} to me",
            "what is {0} good for", "tell me what {0} is", "so what is {0}", "what is {0} in comptoir",
            "what about {0}",
        ),
    ),
    (
        r"(?:how do i|how can i) (.+)",
        (
            "i want to {0}", "i would like to {0}", "what do i do to {0}", "what is the best way to {0}",
            "help me {0}", "{0}",
            "show me how to {0}", "what do i have to do to {0}", "is there a way to {0}", "steps to {0}",
            "i need to {0}",
            "what do i type to {0}", "which command lets me {0}", "where can i {0}", "how could somebody {0}",
            "how does one {0}",
        ),
    ),
    (
        r"can i (.+)",
        (
            "is it possible to {0}", "am i allowed to {0}", "would it be possible to {0}", "could i {0}",
            "i want to {0}",
            "how can i {0}", "may i {0}", "is there any way to {0}", "will i be able to {0}",
        ),
    ),
    (
        r"(?:what happens|what) (?:if|when) (.+)",
        (
            "what if {0}", "what happens if {0}", "what happens when {0}", "{0}, what now", "what do you do when {0}",
            "what will happen if {0}", "suppose {0}", "{0}, what happens then", "and if {0}",
            "tell me what happens when {0}",
        ),
    ),
    (r"does (.+)", ("will {0}", "is it true that {0}", "i want to know if {0}", "can {0}", "do you know whether {0}")),
    (r"is there (?:an? )?(.+)", ("do you have {0}", "does it have {0}", "where is {0}", "have you got {0}", "any {0}")),
    (r"(?:which|what) (.+) are there", (
        "list the {0}", "what {0} exist", "name all {0}", "what are the {0}", "which {0} exist",
    )),
    (r"why (?:is|do|does|are) (.+)", (
        "for what reason is {0}", "how come {0}", "what is the reason {0}", "explain why {0}",
    )),
    (r"(?:write|tell|give|show|send|say) (?:me )?(.+)", (
        "please give me {0}", "i want {0}", "can i have {0}", "make {0}", "{0}",
    )),
)  # fmt: skip
"""Whole questions in another shape; the wording comes out crooked at times, as people's does."""
DROPPABLE = frozenset(
    {"the", "a", "an", "is", "are", "do", "does", "i", "of", "to", "me", "my", "for", "it", "with", "you"}
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def vary(question: str, rng: random.Random) -> str:
    """Return *question* as somebody else might type it (lower case)."""
    text = question.lower().strip()
    end = text[-1] if text[-1:] in "?.!" else ""
    text = text[: len(text) - len(end)] if end else text
    if rng.random() < 0.35:
        text = _reframe(text, rng)
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


def _reframe(text: str, rng: random.Random) -> str:
    for pattern, shapes in REFRAMED:
        found = re.fullmatch(pattern, text)
        if found:
            return rng.choice(shapes).format(found[1])
    return text


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
