"""What routing refuses."""

from comptoir.kit.errors import InvalidField


class UnknownPreference(InvalidField):
    """The named strategy does not exist; the reason lists those that do."""
