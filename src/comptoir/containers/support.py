"""What containers said of the models they were asked about: remembered a while, so that asking is never slow."""

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from comptoir.dispatch import Core, State

FRESH_S = 30.0
"""How long an answer is given without asking again."""

ANSWERS_MAX = 10_000
"""Answers remembered; who asks about more models than that is answered anew."""


class SupportAnswer(NamedTuple):
    """What a container said."""

    body: bytes
    """JSON; empty: it gave no answer."""
    at_s: float


class SupportCache(State):
    """Answers by container and model; the oldest are forgotten first."""

    def __init__(self, core: Core) -> None:
        self._answers: OrderedDict[tuple[str, str], SupportAnswer] = OrderedDict()
        self.asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Questions under way: one container is not asked the same twice at a time."""

    def __len__(self) -> int:
        return len(self._answers)

    def note(self, container: str, model_id: str, body: bytes, *, now_s: float) -> None:
        """Remember an answer."""
        key = container, model_id
        self._answers[key] = SupportAnswer(body, now_s)
        self._answers.move_to_end(key)
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)

    def known(self, container: str, model_id: str) -> bytes:
        """Return the last answer however old it is; empty: there is none."""
        found = self._answers.get((container, model_id))
        return found.body if found is not None else b""

    def is_fresh(self, container: str, model_id: str, *, now_s: float) -> bool:
        """Tell whether there is no need to ask again."""
        found = self._answers.get((container, model_id))
        return found is not None and now_s - found.at_s < FRESH_S
