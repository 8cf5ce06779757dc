"""``comptoir run KIND …``: programs with files, bought from the command line.

A kind is a module here with one command, made by `ordering.sells` from a function that turns its options into a
`WorkOrder`, and one line in `WORDS`. Uploads, the order, following it, its cost, Ctrl-C and the results are the same
for all (`buying`).
"""

import shlex
from typing import Any, NamedTuple


class WordEntry(NamedTuple):
    """A word after ``comptoir run``, as it is known before its module is imported."""

    word: str
    target: str
    """``module:attribute``."""
    help: str
    """First paragraph of the command's help."""


WORDS: tuple[WordEntry, ...] = (
    WordEntry("python", "comptoir.cli.work.python:python", "Run a Python program at a host, and get what it writes."),
    WordEntry(
        "ffmpeg", "comptoir.cli.work.ffmpeg:ffmpeg", "Convert a film or a sound: another format, codec, size or rate."
    ),
    WordEntry(
        "whisper",
        "comptoir.cli.work.whisper:whisper",
        "Write down what is said in a sound or film, or translate it into English.",
    ),
    WordEntry("kind", "comptoir.cli.work.any_kind:any_kind", "Buy work of any kind, with its body as JSON."),
)
"""Every kind that has a command of its own, and ``kind`` for all others, in the order of the help."""


def command_for(offer: dict[str, Any], *, named: bool = True) -> str:
    """Return the command that buys what is on offer, as `GET /house/models` has it under ``others``; with its name, or
    for whatever serves the same."""
    kind, model = str(offer["kinds"][0]), f" --model {shlex.quote(str(offer['name']))}" if named else ""
    if any(entry.word == kind for entry in WORDS):
        return f"comptoir run {kind}{model} …"
    return f"comptoir run kind {shlex.quote(kind)} '{{…}}'{model}"
