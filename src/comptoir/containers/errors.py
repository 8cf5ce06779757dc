"""What is refused before anything is set aside."""

from typing import Any

from comptoir.kit.errors import Refusal


class ContainerRefused(Refusal):
    """A chain of containers is not for this caller; the words and *params* are those of Ritual's node."""

    def __init__(self, message: str, params: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.params = params or {}
