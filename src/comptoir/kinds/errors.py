"""The errors of kinds."""

from comptoir.kit.errors import InvalidField


class KindsError(Exception):
    """A configured kind can't be sold: it can't be loaded, or it contradicts another one."""


class BadOrderField(ValueError):
    """An order of a kind that can't be carried out. *field* of its body is the one to change, *words* say how."""

    def __init__(self, field: str, words: str) -> None:
        super().__init__(f"{field}: {words}")
        self.field = field
        self.words = words


class UnknownKind(InvalidField):
    """The named kind is not sold here."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__("kind", f"must be one of {', '.join(sorted(known))}, not {name[:64]!r}")
