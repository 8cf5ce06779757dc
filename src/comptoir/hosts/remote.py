"""Hosts that are linked to other coordinators of the same trading post, as those last announced them.

Such a host stands in the same lists as those that are here, so that routing chooses among all; who gets its slots is decided where
it is linked, and what is counted here is only the last announcement, less what was asked for since.
"""

from comptoir.hosts.fleet import Fleet, has_moved
from comptoir.hosts.types import OFFLINE


class RemoteHosts:
    """The part of the fleet that is elsewhere."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def note_remote(self, host_id: bytes, *, node_id: bytes, status: str, free: int, total: int) -> None:
        """Another coordinator says that it has this host, with *free* slots of *total*; it decides who gets them.

        Said of a host that is linked or waits here, it is out of date and ignored; of one that is not registered, too.
        """
        host = self._fleet._hosts.get(host_id)
        if host is None or host.linked or (not host.node_id and host.slots.waiting):
            return
        if host.node_id != node_id:
            host.node_id, host.came_ms = node_id, self._fleet._clock.now_ms()
        self._mark(host_id, remote=True)
        host.slots.total = total
        host.slots.running = max(0, total - free)
        if host.slots.waiting is not None:
            host.slots.waiting = free
        host.seen_s = self._fleet._clock.monotonic_s()
        if status != OFFLINE:
            self._fleet._seen[host_id] = None
            self._fleet._seen.move_to_end(host_id)
        if host.status == status:
            self._fleet._place(host)
        else:
            self._fleet._set_status(host, status)

    def note_chosen(self, host_id: bytes, model: str) -> None:
        """Another coordinator gave the host a job: strategies that take turns count it here as well."""
        host = self._fleet._hosts.get(host_id)
        candidate = host.candidates.get(model) if host is not None else None
        if candidate is not None:
            self._fleet._lists[model].took(candidate)
            self._fleet._lists[model].place(candidate)

    def note_figures(self, host_id: bytes, model: str, first_frame_ms: float, inter_frame_ms: float) -> None:
        """Another coordinator measured the host; ignored where it is measured here."""
        host = self._fleet._hosts.get(host_id)
        candidate = host.candidates.get(model) if host is not None else None
        if host is None or candidate is None or model in host.paces:
            return
        if has_moved(candidate.first_frame_ms, first_frame_ms) or has_moved(candidate.inter_frame_ms, inter_frame_ms):
            candidate.first_frame_ms, candidate.inter_frame_ms = first_frame_ms, inter_frame_ms
            self._fleet._lists[model].moved(candidate)

    def note_reputation(self, host_id: bytes, reputation: float) -> None:
        """Take over the reputation that the host's own coordinator keeps."""
        host = self._fleet._hosts.get(host_id)
        for model, candidate in host.candidates.items() if host is not None else ():
            if has_moved(candidate.reputation, reputation):
                candidate.reputation = reputation
                self._fleet._lists[model].moved(candidate)

    def unreachable(self, host_id: bytes) -> None:
        """The host's coordinator can't be asked just now: it is given nothing from here until it is announced again."""
        host = self._fleet.get(host_id)
        host.slots.running = host.slots.total
        self._fleet._place(host)

    def forget(self, host_id: bytes) -> None:
        """The host is nowhere: offline until it comes here or is announced again."""
        host = self._fleet.get(host_id)
        host.node_id = b""
        self._mark(host_id, remote=False)
        host.slots.running = self._fleet._leases_here(host_id)
        self._fleet._set_status(host, OFFLINE)

    def _mark(self, host_id: bytes, *, remote: bool) -> None:
        for model, candidate in self._fleet.get(host_id).candidates.items():
            if candidate.remote != remote:
                candidate.remote = remote
                self._fleet._lists[model].moved(candidate)
