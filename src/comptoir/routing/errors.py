"""What routing refuses."""

from comptoir.kit.errors import InvalidField, Refusal
from comptoir.routing.types import Refused


class RoutingRefusal(Refusal):
    """Root of this room's errors."""


class NoHostPossible(RoutingRefusal):
    """No registered host could ever run the job; *refused* has the count per filter."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.sentence())
        self.refused = refused


class UnknownPreference(InvalidField):
    """The named strategy does not exist; the reason lists those that do."""
