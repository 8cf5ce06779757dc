"""What routing refuses."""

from comptoir.kit.errors import InvalidField, Refusal


class RoutingRefusal(Refusal):
    """Root of this room's errors."""


class UnknownPreference(InvalidField):
    """The named strategy does not exist; the reason lists those that do."""
