"""The errors of the hosts room. A field out of bounds is `kit.errors.InvalidField`."""

from comptoir.kit.errors import Refusal


class HostRefusal(Refusal):
    """Root of this room's errors."""


class UnknownHost(HostRefusal):
    """No such host is registered (or it is retired)."""

    def __init__(self, host_id: bytes) -> None:
        super().__init__("there is no such host")
        self.host_id = host_id


class NoFreeSlot(HostRefusal):
    """The host can't take another job now, or does not offer the model."""

    def __init__(self, host_id: bytes, model: str) -> None:
        super().__init__(f"the host has no free slot for {model}")
        self.host_id = host_id
        self.model = model
