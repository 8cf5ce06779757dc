"""Inquire: what containers say of models, where not every host answers."""

import asyncio

import pytest

from comptoir.containers import inquire
from comptoir.containers.inquire import SupportCache
from tests.dispatch.test_advance import container
from tests.street import FakeChannel, Street

YES = b'{"supported":true}'


class Asked(FakeChannel):
    """A line whose host says *body* of every model; None: it says nothing, ever."""

    body: bytes | None = YES

    def inquire(self, container: str, model_id: str) -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if self.body is not None:
            answer.set_result(self.body)
        return answer


class TestModelSupport:
    async def test_a_host_that_never_answers_does_not_keep_others_from_being_asked(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Anybody may register a host that offers the same container."""
        monkeypatch.setattr(inquire, "HOST_ANSWERS_S", 0.0)
        for _ in range(2):
            await street.host(offer=container("a"))
        mute, good = (one.host_id for one in street.core.fleet.with_container("a"))
        street.core.channels[mute], street.core.channels[good] = Asked(), Asked()
        street.core.channels[mute].body = None  # type: ignore[attr-defined]

        assert await inquire.model_support(street.core, "m") == {"a": YES}
        assert not street.core.state(SupportCache).asking
