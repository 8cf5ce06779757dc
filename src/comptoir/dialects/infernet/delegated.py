"""Delegated subscriptions: read exactly, their signature checked, and refused while this trading post delivers on no chain."""

from comptoir.dispatch import House
from comptoir.dispatch.errors import ContainerRefused


def delegate(house: House, body: bytes) -> None:
    """Take a delegated subscription.

    Raises:
        ContainerRefused: no chain is enabled.
    """
    raise ContainerRefused("Chain not enabled")
