"""The errors of routing."""

from comptoir.kit.errors import InvalidField


class UnknownPreference(InvalidField):
    """The named strategy does not exist; the message lists those that do."""
