"""What remote containers report about themselves, sent on change; and whether they support a model, asked there."""

import asyncio
from functools import partial

from comptoir.cluster.messages import ContainerResources, Inquired, Supports
from comptoir.cluster.switchboard import Switchboard
from comptoir.containers import RemoteContainers, ask_here
from comptoir.dispatch import Core
from comptoir.events import HostResources

ANSWER_S = 6.0
"""How long another coordinator has: longer than it gives its host. Buyers wait less (`containers.inquire.WAIT_S`)."""

OPEN_MAX = 1_000
"""Most unanswered questions in each direction; further ones get no answer."""


class ResourceSync:
    """Sends the other coordinators what containers here report, and queries theirs."""

    def __init__(self, core: Core, switchboard: Switchboard) -> None:
        self._core = core
        self._board = switchboard
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        """By question number: the coordinator asked, and the future that waits for its answer."""
        self._number = 0
        self._answering = 0
        switchboard.on(ContainerResources, self._resources_told)
        switchboard.on(Inquired, self._inquired)
        switchboard.on(Supports, self._supports)
        core.state(RemoteContainers).inquire_over(self)
        core.events.subscribe(HostResources, self._tell)

    # -- reports about themselves --------------------------------------------------------------------------------

    def _tell(self, event: HostResources) -> None:
        self._board.tell_all(ContainerResources(event.host_id, dict(event.of)))

    def tell_whole(self, node_id: bytes) -> None:
        """Send one coordinator what the containers of all hosts here report."""
        for host_id, of in self._core.fleet.catalog.resources_by_host().items():
            if host_id in self._core.channels:
                self._board.send(node_id, ContainerResources(host_id, of))

    def _resources_told(self, sender: bytes, message: ContainerResources) -> None:
        # If the host is linked here by now, its own report is newer.
        if message.host_id not in self._core.channels:
            self._core.fleet.catalog.set_resources(message.host_id, message.of)

    # -- whether they support a model ----------------------------------------------------------------------------

    def inquire(self, host_id: bytes, container: str, model_id: str) -> "asyncio.Future[bytes]":
        """Ask through the coordinator that the host is linked to; the answer is JSON, empty if none came in time."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        host = self._core.fleet.find(host_id)
        node_id = host.node_id if host is not None else b""
        if node_id not in self._board.here or not self._board.up or len(self._asked) >= OPEN_MAX:
            answer.set_result(b"")
            return answer
        self._number += 1
        number = self._number
        self._asked[number] = node_id, answer
        late = self._loop.call_later(ANSWER_S, self._answer, number, b"")
        answer.add_done_callback(lambda _: late.cancel())
        self._board.send(node_id, Inquired(number, host_id, container, model_id))
        return answer

    def _answer(self, number: int, body: bytes) -> None:
        _, answer = self._asked.pop(number, (b"", None))
        if answer is not None and not answer.done():
            answer.set_result(body)

    def _supports(self, sender: bytes, message: Supports) -> None:
        if message.inquiry in self._asked and self._asked[message.inquiry][0] == sender:
            self._answer(message.inquiry, message.body)

    def _inquired(self, sender: bytes, message: Inquired) -> None:
        if self._answering >= OPEN_MAX:
            self._board.send(sender, Supports(message.inquiry, b""))
            return
        self._answering += 1
        asking = self._loop.create_task(ask_here(self._core, message.host_id, message.container, message.model_id))
        asking.add_done_callback(partial(self._heard, sender, message.inquiry))

    def _heard(self, sender: bytes, number: int, asking: "asyncio.Task[bytes]") -> None:
        self._answering -= 1
        body = asking.result() if not asking.cancelled() and asking.exception() is None else b""
        self._board.send(sender, Supports(number, body))

    # -- dead coordinators ---------------------------------------------------------------------------------------

    def forget_node(self, node_id: bytes) -> None:
        """End the questions to a dead coordinator without an answer."""
        for number in [number for number, (asked, _) in self._asked.items() if asked == node_id]:
            self._answer(number, b"")
