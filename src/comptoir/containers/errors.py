"""Refusals before anything is reserved."""

from typing import Any

from comptoir.kit.errors import Refusal


class ContainerRefused(Refusal):
    """The caller may not buy this chain of containers; message and *params* are those of Ritual's node."""

    def __init__(self, message: str, params: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.params = params or {}
