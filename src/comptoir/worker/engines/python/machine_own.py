"""Packages that are this machine's own: builds of torch for its GPU, in a folder that its owner names."""

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from comptoir.kinds.python.requirements import MACHINE_OWN

_Release = tuple[int, ...]
_SPECIFIER = re.compile(r"(~=|==|!=|<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?")


def _starts(have: _Release, asked: _Release) -> bool:
    return have[: len(asked)] == asked


_HOLDS: Mapping[str, Callable[[_Release, _Release], bool]] = {
    "==": lambda have, asked: _plain(have) == _plain(asked),
    "!=": lambda have, asked: _plain(have) != _plain(asked),
    ">=": lambda have, asked: _plain(have) >= _plain(asked),
    "<=": lambda have, asked: _plain(have) <= _plain(asked),
    ">": lambda have, asked: _plain(have) > _plain(asked),
    "<": lambda have, asked: _plain(have) < _plain(asked),
    "~=": lambda have, asked: have >= asked and _starts(have, asked[:-1]),
}


def _plain(release: _Release) -> _Release:
    """Return a release without the zeros at its end: 2.0 is 2."""
    while release and not release[-1]:
        release = release[:-1]
    return release


def _release(text: str) -> _Release:
    return tuple(int(part) for part in re.match(r"[0-9]*(?:\.[0-9]+)*", text)[0].split(".") if part)  # type: ignore[index]


def meets(line: str, version: str) -> bool:
    """Tell whether an own build's *version* is what a (checked) requirement line asks for, by its release alone.

    What it was built for (``+cu126``) and whether it is a release at all are the machine's own business.
    """
    if not version:
        return False
    have = _release(version)
    for operator, asked, any_below in _SPECIFIER.findall(line.partition(";")[0]):
        release = _release(asked)
        if any_below:
            if _starts(have, release) is (operator == "!="):
                return False
        elif not _HOLDS[operator](have, release):
            return False
    return True


def found_in(folder: Path) -> dict[str, str]:
    """Return the versions of `MACHINE_OWN` in a folder of packages."""
    found = {}
    for each in importlib.metadata.distributions(path=[str(folder)]):
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        if name in MACHINE_OWN:
            found[name] = each.version
    return found
