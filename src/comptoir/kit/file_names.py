"""What no file's name has here, whoever calls it so: what files are stored under, and what hosts deliver."""

import re

UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""No paths, no lines, and nothing that turns the direction of what is read."""


def fit_name(name: str) -> str:
    """Return *name* with ``_`` for each character that no file's name has."""
    return UNFIT.sub("_", name)
