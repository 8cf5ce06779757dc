"""Values of the webhooks room."""

from enum import StrEnum

import msgspec

from comptoir.events import NumberedEvent


class WebhookState(StrEnum):
    """State of a webhook: active <-> paused."""

    ACTIVE = "active"
    """Events become messages, and messages are sent."""
    PAUSED = "paused"
    """Nothing is sent. Events wait where they are kept anyway; resuming goes on after the last one sent."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook, without its secret."""

    id: bytes
    owner_id: bytes
    url: str
    types: tuple[str, ...]
    """Tags of the events that it gets; empty: all."""
    note: str
    parallel: int
    """Messages that may be under way at once, not counting one that is tried again; 1 keeps them in order."""
    state: WebhookState
    why: str
    """Why it is paused; empty while it is active."""
    cursor: int
    failing_since_ms: int | None
    """The first failure since it last accepted anything; None: the last attempt succeeded, or there was none."""
    old_secret_until_ms: int | None
    """Until when messages are also signed with the secret before."""
    created_ms: int

    def wants(self, event: NumberedEvent) -> bool:
        """Tell whether *event* is of a type that it gets."""
        return not self.types or str(type(event).__struct_config__.tag) in self.types


class NewWebhook(msgspec.Struct, frozen=True):
    """A webhook that was just made, or got a new secret, with that."""

    webhook: Webhook
    secret: str
    """``whsec_…``; shown once."""
