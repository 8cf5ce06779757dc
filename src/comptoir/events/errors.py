"""The errors of the events room."""

from comptoir.kit.errors import Refusal


class EventsForgotten(Refusal):
    """Events right after the cursor are past retention: a reader that continues from `first_number` has missed some."""

    def __init__(self, *, after: int, first_number: int) -> None:
        super().__init__(
            f"events after number {after} are forgotten; the first that is still there has number {first_number}"
        )
        self.after = after
        self.first_number = first_number
