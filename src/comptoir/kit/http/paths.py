"""Which route a path leads to, however many slashes a client puts in, and which served path comes nearest to another.

A path as published is found in one dictionary (`Paths.exact`). Whatever else comes is looked at once more: slashes that
are doubled or at the end count for nothing, except inside a parameter that may contain them, such as a model's name.
"""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Generic, TypeVar

from comptoir.kit.http.errors import shown

Target = TypeVar("Target")

NEAR = 0.8
"""How alike two paths have to be, from 0 to 1 (`difflib`), for one to be named where the other was asked for."""

SAME_METHOD = 0.05
"""How much nearer a path is that answers the method that was asked for."""

COMPARED_MAX = 6
"""Paths that are compared letter by letter, of those that share most pairs of letters: 60 us each."""

_PARAMETER = re.compile(r"\{(?P<name>\w+)(?P<rest>:path)?\}")


def plain(path: str) -> str:
    """Return *path* with one slash before each segment, and none at its end."""
    return "/" + "/".join([segment for segment in path.split("/") if segment])


@dataclass(frozen=True)
class _Pattern(Generic[Target]):
    method: str
    segments: tuple[str, ...]
    regex: re.Pattern[str]
    target: Target

    def filled(self, params: dict[str, str]) -> str:
        """Return the path as published, with *params* in their places."""
        return "".join([f"/{params[segment[1:-1]] if segment[0] == '{' else segment}" for segment in self.segments])


def _pattern(method: str, path: str, target: Target) -> _Pattern[Target]:
    segments, expressions = [], []
    for segment in path.strip("/").split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        assert parameter or "{" not in segment, "a parameter is a whole segment"
        segments.append(f"{{{parameter['name']}}}" if parameter else segment)
        if parameter:
            expressions.append(f"(?P<{parameter['name']}>[^/]{'.*' if parameter['rest'] else '+'})")
        else:
            expressions.append(re.escape(segment))
    assert segments[0][0] != "{", "a path begins with a word of its own"
    return _Pattern(method, tuple(segments), re.compile("/++" + "/++".join(expressions)), target)


@dataclass(frozen=True)
class _Served:
    """One path as it is shown, and its methods; *pairs* are the pairs of letters of its fixed segments."""

    segments: tuple[str, ...]
    methods: set[str]
    pairs: frozenset[str]

    @property
    def shown(self) -> str:
        return "/" + "/".join(self.segments)

    def beside(self, others: list[str]) -> tuple[str, str]:
        """Return this path and the other one, with the same letter in both for each parameter of this one."""
        if len(others) != len(self.segments):
            return self.shown, "/" + "/".join(others)
        taken = [
            ("_", "_") if mine[0] == "{" else (mine, other) for mine, other in zip(self.segments, others, strict=True)
        ]
        return "".join([f"/{mine}" for mine, _ in taken]), "".join([f"/{other}" for _, other in taken])


def _pairs(path: str) -> frozenset[str]:
    return frozenset([path[at : at + 2] for at in range(len(path) - 1)])


class Paths(Generic[Target]):
    """Paths, each with what they lead to by method."""

    def __init__(self) -> None:
        self.exact: dict[tuple[str, str], Target] = {}
        """By method and path, those without parameters."""
        self._patterns: dict[str, list[_Pattern[Target]]] = {}
        """By first segment of the path, which is fixed in every published path."""
        self._methods: dict[str, set[str]] = {}
        self._served: dict[str, dict[str, _Served]] = {}
        """By the prefix below which they are served, by path."""
        self._instead: dict[str, str] = {}

    def add(self, method: str, path: str, target: Target, *, prefix: str = "") -> None:
        """Let *path*, which begins with *prefix*, lead to *target*; what was added first stays."""
        if "{" in path:
            pattern = _pattern(method, path, target)
            self._patterns.setdefault(pattern.segments[0], []).append(pattern)
            segments = pattern.segments
        elif (method, path) in self.exact:
            return
        else:
            self.exact[method, path] = target
            self._methods.setdefault(path, set()).add(method)
            segments = tuple(segment for segment in path.split("/") if segment)
        self.mention(method, segments, prefix=prefix)

    def mention(self, method: str, segments: tuple[str, ...], *, prefix: str) -> None:
        """Name the path of these *segments* where another that is like it is not served."""
        path = "/" + "/".join(segments)
        fixed = "/" + "/".join([segment for segment in segments if segment[0] != "{"])
        served = self._served.setdefault(prefix, {})
        served.setdefault(path, _Served(segments, set(), _pairs(fixed))).methods.add(method)

    def instead(self, path: str, served: str) -> None:
        """Name *served* for *path*, which a client of a published API may ask for and nothing serves."""
        self._instead.setdefault(path, served)

    def find(self, method: str, path: str) -> tuple[Target, dict[str, str], str] | None:
        """Return what *path* leads to, its parameters, and the path as published; None: to nothing by this method."""
        asked = plain(path) if _is_sloppy(path) else path
        target = self.exact.get((method, asked))
        if target is not None:
            return target, {}, asked
        rest = path.rstrip("/")
        for pattern in self._patterns.get(asked.split("/", 2)[1], ()):
            if pattern.method == method and (match := pattern.regex.fullmatch(rest)) is not None:
                params = match.groupdict()
                return pattern.target, params, pattern.filled(params) if asked is not path else path
        return None

    def allowed(self, path: str) -> set[str]:
        """Return the methods by which *path* leads anywhere."""
        asked = plain(path)
        rest = path.rstrip("/")
        found = {p.method for p in self._patterns.get(asked.split("/", 2)[1], ()) if p.regex.fullmatch(rest)}
        return found | self._methods.get(asked, set())

    def nearest(self, method: str, path: str) -> str:
        """Return the served path that is most like *path*; empty: none is like it.

        Below a prefix of a dialect only paths below it are compared. Takes some 0.3 ms.
        """
        asked = plain(shown(path))
        if asked in self._instead:
            return self._instead[asked]
        prefix = max((p for p in self._served if p and (asked + "/").startswith(p + "/")), key=len, default="")
        letters, words = _pairs(asked), asked[1:].split("/")
        served = self._served.get(prefix, {}).values()
        likely = sorted(served, key=lambda one: len(one.pairs & letters) / (len(one.pairs) + len(letters)))
        best, best_ratio = "", NEAR
        for one in likely[: -COMPARED_MAX - 1 : -1]:
            mine, other = one.beside(words)
            # The prefix is the same in both.
            matcher = SequenceMatcher(None, mine[len(prefix) :], other[len(prefix) :], autojunk=False)
            ratio = matcher.ratio() + (SAME_METHOD if method in one.methods else 0.0)
            if ratio > best_ratio:
                best, best_ratio = one.shown, ratio
        return best


def _is_sloppy(path: str) -> bool:
    return "//" in path or path[-1:] == "/" != path or path[:1] != "/"
