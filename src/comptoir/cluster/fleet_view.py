"""The fleet of all coordinators in each one's memory: local hosts are announced, remote ones taken as announced.

The coordinator that a host is connected to counts its slots; the others know them about 20 ms late. An offer based on
an outdated count is declined (`comptoir.cluster.offers`), never acted on.
"""

import asyncio
import logging
from collections import Counter

from comptoir.cluster.messages import AnnouncedHost, Announcement, Figures, Hail, Outcome
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.events import RemoteHostOutcome, RemoteJobsWaiting
from comptoir.hosts import OFFLINE, Host, RemoteHosts

log = logging.getLogger(__name__)

ANNOUNCE_S = 0.02
"""How long changes are gathered before they are announced: at most 50 messages a second."""

HOSTS_A_MESSAGE = 500


class FleetView:
    """Announces the hosts here to the other coordinators, and records what they announce."""

    def __init__(self, core: Core, switchboard: Switchboard) -> None:
        self._core = core
        self._board = switchboard
        self._remote = RemoteHosts(core.fleet)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heads: dict[str, bytes] = {}
        self._of: dict[bytes, set[bytes]] = {}
        """Hosts by the coordinator that announced them."""
        self._unknown: dict[bytes, tuple[AnnouncedHost, bytes]] = {}
        """The latest announcement, with its sender, of hosts that are being looked up."""
        self._counted: Counter[tuple[bytes, str]] = Counter()
        """Turns counted here when a job was offered, which the coordinator that takes it announces too."""
        self.heads: dict[bytes, dict[str, bytes]] = {}
        """By coordinator and model: its longest-waiting job."""
        core.fleet.unannounced = set()
        core.fleet.chosen = []
        switchboard.on(Announcement, self._heard)
        switchboard.on(Outcome, self._outcome)
        core.events.subscribe(RemoteHostOutcome, self._tell_outcome)
        switchboard.on_gap.append(lambda sender: switchboard.send(sender, Hail()))
        switchboard.on_change.append(self._bus_changed)

    # -- out -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start announcing."""
        self._timer = self._loop.call_later(ANNOUNCE_S, self._tell_changes)

    def stop(self) -> None:
        """Stop announcing."""
        if self._timer is not None:
            self._timer.cancel()

    def tell_whole(self, node_id: bytes) -> None:
        """Announce every host here to one coordinator."""
        if not self._board.up:
            return
        hosts = [self._seen(host) for host in self._core.fleet if self._is_here(host)]
        for first in range(0, max(1, len(hosts)), HOSTS_A_MESSAGE):
            part = hosts[first : first + HOSTS_A_MESSAGE]
            self._board.send(node_id, Announcement(first == 0, part, [], self._heads))

    def _tell_changes(self) -> None:
        self._timer = self._loop.call_later(ANNOUNCE_S, self._tell_changes)
        fleet = self._core.fleet
        stirred, fleet.unannounced = fleet.unannounced or set(), set()
        chosen, fleet.chosen = fleet.chosen or [], []
        heads = self._core.jobs.queue.heads()
        for node_id, waiting in self.heads.items():
            if waiting:
                self._core.events.publish(RemoteJobsWaiting(node_id))
        if not (stirred or chosen or heads != self._heads) or not self._board.here:
            self._heads = heads
            return
        self._heads = heads
        found = [host for host in map(fleet.find, stirred) if host is not None and not host.node_id]
        hosts = [self._seen(host) for host in found]
        for first in range(0, max(1, len(hosts)), HOSTS_A_MESSAGE):
            self._board.tell_all(
                Announcement(False, hosts[first : first + HOSTS_A_MESSAGE], chosen if not first else [], heads)
            )

    def _is_here(self, host: Host) -> bool:
        return not host.node_id and host.status != OFFLINE

    def _seen(self, host: Host) -> AnnouncedHost:
        # Any coordinator may hear from a polling or push host; a linked one is only where its link is.
        status = host.status if host.linked or not host.reach.one_place else OFFLINE
        figures = [
            Figures(model, pace.figures.first_frame_p50_ms, pace.figures.inter_frame_p50_ms)
            for model, pace in host.paces.items()
        ]
        return AnnouncedHost(
            host.id,
            status,
            host.slots.free,
            host.slots.total,
            list(host.row.models),
            figures,
            host.published_reputation,
        )

    def counted(self, host_id: bytes, model: str, times: int) -> None:
        """Note that routing here has counted a turn of a remote host (-1: that the offer was not taken)."""
        self._counted[host_id, model] = max(0, self._counted[host_id, model] + times)

    # -- in ------------------------------------------------------------------------------------------------------

    def _heard(self, sender: bytes, view: Announcement) -> None:
        of = self._of.setdefault(sender, set())
        if view.full:
            for host_id in of - {host.id for host in view.hosts}:
                self._forget(host_id, sender)
            of.clear()
        for host in view.hosts:
            of.add(host.id)
            if self._core.fleet.find(host.id) is None:
                self._meet(host, sender)
            else:
                self._note(host, sender)
        for host_id, model in view.chosen:
            if self._counted[host_id, model]:
                self._counted[host_id, model] -= 1
            else:
                self._remote.note_chosen(host_id, model)
        self.heads[sender] = view.heads
        if view.heads:
            self._core.events.publish(RemoteJobsWaiting(sender))

    def _note(self, seen: AnnouncedHost, sender: bytes) -> None:
        fleet = self._core.fleet
        host = fleet.get(seen.id)
        if host.linked or (seen.status == OFFLINE and host.node_id != sender):
            return  # It left the sender, and is connected here or elsewhere by now.
        if host.node_id not in (b"", sender) and not host.reach.one_place and host.slots.free and not seen.free:
            return  # Announced by two; the one that can give it jobs counts.
        if tuple(seen.models) != host.row.models or seen.total != host.row.slots:
            fleet.replace_offer(seen.id, tuple(seen.models), seen.total)
        if seen.status == OFFLINE:
            self._forget(seen.id, sender)
            return
        self._remote.note_remote(seen.id, node_id=sender, status=seen.status, free=seen.free, total=max(1, seen.total))
        self._remote.note_reputation(seen.id, seen.reputation)
        for figures in seen.figures:
            self._remote.note_figures(seen.id, figures.model, figures.first_frame_ms, figures.inter_frame_ms)

    def _forget(self, host_id: bytes, sender: bytes) -> None:
        host = self._core.fleet.find(host_id)
        if host is not None and host.node_id == sender:
            self._remote.forget(host_id)

    def _meet(self, seen: AnnouncedHost, sender: bytes) -> None:
        if seen.id not in self._unknown:
            self._core.background.spawn(self._look_up(seen.id))
        self._unknown[seen.id] = seen, sender

    async def _look_up(self, host_id: bytes) -> None:
        try:
            if await self._core.hosts.meet(host_id):
                self._note(*self._unknown[host_id])
        finally:
            self._unknown.pop(host_id)

    # -- dead coordinators ---------------------------------------------------------------------------------------

    def forget_node(self, node_id: bytes) -> None:
        """Set a dead coordinator's hosts offline until they connect here or another one announces them."""
        self.heads.pop(node_id, None)
        for host_id in self._of.pop(node_id, ()):
            self._forget(host_id, node_id)

    def _bus_changed(self, up: bool) -> None:
        if up:
            for node_id in self._board.here:
                self._board.send(node_id, Hail())
                self.tell_whole(node_id)
        else:
            self.heads.clear()
            for host in self._core.fleet:
                if host.node_id:
                    self._remote.unreachable(host.id)

    # -- outcomes ------------------------------------------------------------------------------------------------

    def _tell_outcome(self, event: RemoteHostOutcome) -> None:
        self._board.send(
            event.node_id,
            Outcome(event.host_id, event.outcome, event.tokens, event.buyer, event.paid_uusd),
        )

    def _outcome(self, sender: bytes, message: Outcome) -> None:
        host = self._core.fleet.find(message.host_id)
        if host is not None and not host.node_id:
            self._core.fleet.outcome(
                message.host_id,
                message.outcome,
                buyer=message.buyer,
                tokens=message.tokens,
                paid_uusd=message.paid_uusd,
            )
