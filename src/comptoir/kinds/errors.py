"""The errors of kinds."""

from comptoir.kit.errors import InvalidField


class KindsError(Exception):
    """A configured kind can't be sold: it can't be loaded, or it contradicts another one."""


class UnknownKind(InvalidField):
    """The named kind is not sold here."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__("kind", f"must be one of {', '.join(sorted(known))}, not {name[:64]!r}")
