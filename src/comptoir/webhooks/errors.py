"""Refusals of the webhooks room."""

from comptoir.kit.errors import Refusal


class UnknownWebhook(Refusal):
    """There is no such webhook, or it is another's."""

    def __init__(self) -> None:
        super().__init__("no such webhook")


class TooManyWebhooks(Refusal):
    """The owner has as many as allowed."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"you have {most} webhooks already, which is the most: delete one first"
            if most
            else "this trading post sends no webhooks"
        )
        self.most = most


class WebhookNotActive(Refusal):
    """The webhook is paused, so nothing is sent to it; *why* says since when and by whom."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the webhook is paused ({why}): resume it first")
        self.why = why
