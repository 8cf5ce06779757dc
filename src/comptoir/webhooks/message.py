"""The body of a message: type, time and facts of an event, as JSON. The same event is always the same bytes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from comptoir.events import CreditAdded, HostChanged, JobAccepted, JobAssigned, JobEnded, NumberedEvent, WebhookPaused
from comptoir.kit.ids import public

MESSAGE = "msg"
"""Prefix of a message's public id, the ``webhook-id``."""

TEST = "webhook.test"
"""Type of the message that `comptoir webhooks test` sends."""


def _job_ended(event: JobEnded) -> dict[str, Any]:
    return {
        "job": public("job", event.job_id),
        "receipt": public("rcpt", event.job_id),
        "state": event.state,
        "cost_uusd": event.cost_uusd,
        "error_code": event.error_code or None,
    }


def _job_accepted(event: JobAccepted) -> dict[str, Any]:
    return {"job": public("job", event.job_id), "model": event.model}


def _job_assigned(event: JobAssigned) -> dict[str, Any]:
    return {
        "job": public("job", event.job_id),
        "attempt": public("att", event.lease_id),
        "host": public("host", event.host_id),
    }


def _host_changed(event: HostChanged) -> dict[str, Any]:
    return {"host": public("host", event.host_id), "status": event.status}


def _credit_added(event: CreditAdded) -> dict[str, Any]:
    return {"transfer": event.transfer_id.hex(), "amount_uusd": event.amount_uusd, "kind": event.kind}


def _webhook_paused(event: WebhookPaused) -> dict[str, Any]:
    return {"webhook": public("webhook", event.webhook_id), "why": event.why}


FACTS: Mapping[type[NumberedEvent], Callable[[Any], dict[str, Any]]] = {
    JobEnded: _job_ended,
    CreditAdded: _credit_added,
    WebhookPaused: _webhook_paused,
    JobAccepted: _job_accepted,
    JobAssigned: _job_assigned,
    HostChanged: _host_changed,
}
"""What is said of each type; a test holds it to `events.NUMBERED`."""


def event_types() -> tuple[str, ...]:
    """Return the tags of all events that a webhook can get."""
    return tuple([str(kind.__struct_config__.tag) for kind in FACTS])


def body_of(event: NumberedEvent) -> bytes:
    """Return the body of the message about *event*, of one of `event_types`."""
    tag = str(type(event).__struct_config__.tag)
    return message_body(tag, at_ms=event.at_ms, number=event.number, facts=FACTS[type(event)](event))


def message_body(kind: str, *, at_ms: int, number: int, facts: dict[str, Any]) -> bytes:
    """Return the body of a message; *number* is that of the event, 0 for a message that is about none."""
    seconds, rest = divmod(at_ms, 1000)
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"
    return msgspec.json.encode({"type": kind, "timestamp": timestamp, "number": number, "data": facts})
