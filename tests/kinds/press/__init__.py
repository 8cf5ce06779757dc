"""Press: a toy kind with files. It prints each of its inputs in capitals, and is sold by the page, all at its end.

Like `tests.kinds.echo` it lives here to show that a kind with files is one class and one line of registration:
``COMPTOIR_KINDS=tests.kinds.press:Press``, ``--kind tests.kinds.press:Press``.
"""

import msgspec

from comptoir.kinds import Unit
from comptoir.kinds.files import FileKind, InputFile

PAGE = Unit("page", "page", "pages", 1, "page")


class PressBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is bought."""

    inputs: tuple[InputFile, ...]
    title: str = "page"


read = msgspec.json.Decoder(PressBody).decode


class Press(FileKind):
    """Files, in capitals."""

    name = "press"
    output = PAGE
    noun = "press"
    output_over_max = 0

    def check(self, body: bytes) -> str:
        """Say what is wrong with a body."""
        try:
            asked = read(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f'must look like {{"inputs": [{{"file": "file_…"}}], "title": "news"}}: {error}'
        return "" if asked.inputs else "must have an input"

    def output_max(self, body: bytes) -> int:
        """Return a page for each input."""
        return len(read(body).inputs)
