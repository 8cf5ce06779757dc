"""What the kinds refuse."""

from comptoir.kit.errors import InvalidField


class KindsError(Exception):
    """A kind that was asked for can't be sold: it can't be loaded, or it contradicts another one."""


class UnknownKind(InvalidField):
    """A kind is named that is not sold here."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__("kind", f"must be one of {', '.join(sorted(known))}, not {name[:64]!r}")
