"""A coordinator stand-in and a worker's inner half (loop and uplink) joined to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import pytest
import pytest_asyncio
from nacl.signing import VerifyKey

from comptoir.kinds import Kinds
from comptoir.kit.clock import Clock
from comptoir.kit.signing import SigningKey
from comptoir.link import ModelOffer
from comptoir.worker.addresses import Addresses
from comptoir.worker.backoff import Backoff
from comptoir.worker.engines.base import Engine
from comptoir.worker.engines.openai import OpenAIEngine
from comptoir.worker.events import Event
from comptoir.worker.files import HostFiles
from comptoir.worker.leases import BUILT_IN_KINDS, LeaseTable
from comptoir.worker.loop import JobRunner
from comptoir.worker.receipt_store import ReceiptStore
from comptoir.worker.uplink import Uplink
from tests.worker.coordinator_stand_in import HOST_KEY, Coordinator, serve
from tests.worker.openai_stand_in import OpenAIStandIn, serve_openai

Kind = TypeVar("Kind")


class Half:
    """Loop and uplink of a worker, without engines to start and files to write."""

    def __init__(
        self,
        coordinator: Coordinator,
        engine: Engine,
        *,
        slots: int,
        clock: Clock | None,
        key: str,
        urls: list[str],
        receipts: ReceiptStore | None,
        kinds: Kinds,
        files: HostFiles | None,
    ) -> None:
        self.events: list[Event] = []
        self.table = LeaseTable(kinds)
        signing_key = SigningKey.generate()
        coordinator.verify_key = VerifyKey(signing_key.public_key)
        self.runner = JobRunner(
            table=self.table,
            signing_key=signing_key,
            slots=slots,
            clock=clock,
            on_event=self.events.append,
            files=files,
        )
        self.runner.offer({"trivial": engine})
        self.uplink = Uplink(
            addresses=Addresses(urls, pick=lambda count: 0),
            key=key,
            software="test/1",
            table=self.table,
            jobs=self.runner,
            receipts=receipts,
            on_event=self.events.append,
            backoff=Backoff(jitter=lambda low, high: 0.0),
        )
        self.uplink.offer([ModelOffer(name="trivial", kinds=["chat"])], slots)
        self.link = asyncio.create_task(self.uplink.run())

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    async def close(self) -> None:
        await self.runner.abandon()
        await self.uplink.close()
        self.link.cancel()
        await asyncio.wait((self.link,))
        if not self.link.cancelled():
            # Tests that expect an error have awaited the link themselves.
            self.link.exception()


JoinWorker = Callable[..., AbstractAsyncContextManager[Half]]


@pytest_asyncio.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    async with serve(Coordinator()) as running:
        yield running


@pytest.fixture
def join(coordinator: Coordinator) -> JoinWorker:
    """Give a context manager that links a worker half with the given engine to the coordinator."""

    @asynccontextmanager
    async def joined(
        engine: Engine,
        *,
        slots: int = 8,
        clock: Clock | None = None,
        key: str = HOST_KEY,
        wait: bool = True,
        others: Sequence[Coordinator] = (),
        receipts: ReceiptStore | None = None,
        kinds: Kinds = BUILT_IN_KINDS,
        files: HostFiles | None = None,
    ) -> AsyncIterator[Half]:
        urls = [coordinator.url, *(other.url for other in others)]
        half = Half(
            coordinator,
            engine,
            slots=slots,
            clock=clock,
            key=key,
            urls=urls,
            receipts=receipts,
            kinds=kinds,
            files=files,
        )
        for other in others:
            other.verify_key = coordinator.verify_key
        try:
            if wait:
                async with asyncio.timeout(5):
                    while not half.uplink.connected:
                        await asyncio.sleep(0)
            yield half
        finally:
            await half.close()

    return joined


@pytest_asyncio.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with serve_openai() as stand_in:
        yield stand_in


@pytest_asyncio.fixture
async def engine(server: OpenAIStandIn) -> AsyncIterator[OpenAIEngine]:
    made = OpenAIEngine(base_url=server.base_url)
    await made.start()
    yield made
    await made.close()
