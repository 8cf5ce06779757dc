"""Refusals of the outbox."""

from comptoir.kit.errors import Refusal


class OutboxFull(Refusal):
    """The owner has *waiting_max* intents waiting already: the command that would add one writes nothing."""

    def __init__(self, waiting_max: int) -> None:
        super().__init__(f"{waiting_max:,} messages are waiting to be sent already; try again when some have been")
        self.waiting_max = waiting_max


class UnknownIntent(Refusal):
    """There is no such intent, it is another's, or it was forgotten."""

    def __init__(self) -> None:
        super().__init__("no such message; those that are over are kept for some weeks")
