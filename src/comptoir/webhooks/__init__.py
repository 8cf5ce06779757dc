"""Webhooks: addresses that owners want their events sent to, with their secrets; and the messages that are sent there.

Owns: table ``webhooks``.
Invariant: a webhook's cursor is the number of the last event of its owner that was made a message for it or passed
over, and it moves in the command that writes that message to the outbox, under the lock of the webhook's row: each
event becomes one message, in order. A secret is stored sealed with a key of the data folder, and shown once.
Units: milliseconds; ids are 16 bytes. Knows: events. How messages are kept and sent is not known here.
"""

from comptoir.webhooks.errors import TooManyWebhooks, UnknownWebhook, WebhookNotActive
from comptoir.webhooks.message import MESSAGE, TEST, body_of, event_types, message_body
from comptoir.webhooks.service import PAGES_OF, Webhooks, webhook_rows
from comptoir.webhooks.signing import secret_text, signature
from comptoir.webhooks.tables import TABLES
from comptoir.webhooks.types import NewWebhook, Webhook, WebhookState

__all__ = [
    "MESSAGE",
    "PAGES_OF",
    "TABLES",
    "TEST",
    "NewWebhook",
    "TooManyWebhooks",
    "UnknownWebhook",
    "Webhook",
    "WebhookNotActive",
    "WebhookState",
    "Webhooks",
    "body_of",
    "event_types",
    "message_body",
    "secret_text",
    "signature",
    "webhook_rows",
]
