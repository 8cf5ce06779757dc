"""Keeps what a coordinator signed, and hands it in when that coordinator lost it (`AskReceipts`)."""

import asyncio
import logging
from collections.abc import Callable

from comptoir.kit.ids import parse
from comptoir.link import HANDED_MAX, LISTED_MAX, AskReceipts, ConfirmedHead, FromWorker, HandIn, KeptReceipt, Settled
from comptoir.worker.receipt_store import Place, ReceiptStore

_log = logging.getLogger(__name__)


class HandingIn:
    """Answers questions about the receipts in *store*; *wake* is called when `take` has something to return.

    Without a store nothing is kept, and coordinators are told so.
    """

    def __init__(self, store: ReceiptStore | None, *, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._places: dict[bytes, Place] | None = None
        """Where the receipts are, read once a connection when they are first asked for."""
        self._answers: list[HandIn] = []
        self._answering: asyncio.Task[None] | None = None

    @property
    def keeps(self) -> bool:
        """Whether receipts are kept."""
        return self._store is not None

    @property
    def heads(self) -> list[bytes]:
        """What to bring with `Hello`."""
        return self._store.heads if self._store is not None else []

    def connected(self) -> None:
        """Begin a new connection: what the last one was asked is dropped."""
        self._stop()
        self._answers, self._places = [], None

    def settled(self, message: Settled) -> None:
        """Keep the receipt that came with *message*, if one did."""
        if self._store is not None and message.receipt is not None:
            self._store.add(parse("job", message.job_id) or b"", message.receipt)

    def head(self, message: ConfirmedHead) -> None:
        """Keep what a coordinator says that it has confirmed."""
        if self._store is not None:
            self._store.note_head(message)

    def ask(self, message: AskReceipts) -> None:
        """Read what is asked for in a thread; the answer is taken later. A question before the answer replaces it."""
        if self._store is not None:
            self._stop()
            self._answering = asyncio.get_running_loop().create_task(self._answer(self._store, message))

    def take(self) -> list[FromWorker]:
        """Return what is to be sent now."""
        answers, self._answers = self._answers, []
        return [*answers]

    async def close(self) -> None:
        """Answer nothing more."""
        self._stop()
        if self._answering is not None:
            await asyncio.wait((self._answering,))

    def _stop(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, store: ReceiptStore, message: AskReceipts) -> None:
        try:
            if self._places is None:
                self._places = await asyncio.to_thread(store.places)
            places = self._places
            if message.wanted:
                wanted = [places[job_id] for job_id in message.wanted[:HANDED_MAX] if job_id in places]
                answer = HandIn(receipts=await asyncio.to_thread(lambda: list(store.read(wanted))))
            else:
                rest = list(places.items())[max(0, message.after) :]
                listed = [KeptReceipt(job_id, place.sha256) for job_id, place in rest[:LISTED_MAX]]
                answer = HandIn(listed, len(rest) > LISTED_MAX)
        except OSError as error:
            _log.warning("the receipts can't be read: %s", error)
            answer = HandIn()
        self._answers.append(answer)
        self._wake()
