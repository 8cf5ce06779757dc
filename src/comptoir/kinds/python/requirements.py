"""Requirement lines: names, extras, versions and markers (PEP 508), and nothing that could lead anywhere else.

No options, indexes, addresses, paths or editables: where packages come from is the host owner's word.
"""

import re

LINES_MAX = 64
"""Most requirement lines of an order."""
LINE_CHARS_MAX = 200
"""Longest requirement line."""

MACHINE_OWN = frozenset(("torch", "torchvision", "torchaudio"))
"""Packages that are the host's own build, made for its GPU: never fetched."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:~=|==|!=|<=|>=|<|>)\s*[A-Za-z0-9.!+*_-]+"
_MARKER_VALUE = r"(?:[a-z_]+|'[A-Za-z0-9 ._-]*'|\"[A-Za-z0-9 ._-]*\")"
_MARKER = rf"\(*\s*{_MARKER_VALUE}\s*(?:~=|==|!=|<=|>=|<|>|not\s+in|in)\s*{_MARKER_VALUE}\s*\)*"
_LINE = re.compile(
    rf"\s*(?P<name>{_NAME})\s*(?:\[\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\])?"
    rf"\s*(?:{_VERSION}(?:\s*,\s*{_VERSION})*|\(\s*{_VERSION}(?:\s*,\s*{_VERSION})*\s*\))?"
    rf"\s*(?:;\s*{_MARKER}(?:\s+(?:and|or)\s+{_MARKER})*)?\s*",
    re.ASCII,
)


def wrong_line(line: str) -> str:
    """Return what is wrong with a requirement line, as the end of a sentence; empty: nothing."""
    if len(line) > LINE_CHARS_MAX:
        return f"is longer than {LINE_CHARS_MAX} characters"
    if "\n" in line or "\r" in line or _LINE.fullmatch(line) is None:
        return f"is no name of a package with versions, such as numpy>=2,<3: {line[:80]!r}"
    return ""


def name_of(line: str) -> str:
    """Return the normalised name in a line; empty: it has none."""
    found = _LINE.fullmatch(line)
    return re.sub(r"[-_.]+", "-", found["name"]).lower() if found is not None else ""
