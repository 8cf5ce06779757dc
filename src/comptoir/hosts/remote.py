"""Hosts connected to other coordinators of the same trading post, as those last announced them.

A remote host is in the same lists as local ones, so that routing chooses among all. Its own coordinator decides who
gets its slots; the count here is only the last announcement, less what was requested since.
"""

from comptoir.hosts.fleet import Fleet, has_moved
from comptoir.hosts.types import OFFLINE


class RemoteHosts:
    """The remote part of the fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def note_remote(self, host_id: bytes, *, node_id: bytes, status: str, free: int, total: int) -> None:
        """Note that another coordinator announced this host with *free* of *total* slots; it decides who gets them.

        An announcement of a host that is connected or polling here is outdated and ignored, as is one of an unknown
        host.
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
        """Note that another coordinator gave the host a job: strategies that take turns count it here as well."""
        host = self._fleet._hosts.get(host_id)
        candidate = host.candidates.get(model) if host is not None else None
        if candidate is not None:
            self._fleet._lists[model].took(candidate)
            self._fleet._lists[model].place(candidate)

    def note_figures(self, host_id: bytes, model: str, first_frame_ms: float, inter_frame_ms: float) -> None:
        """Note another coordinator's measurements of the host; ignored if the host is measured here."""
        host = self._fleet._hosts.get(host_id)
        candidate = host.candidates.get(model) if host is not None else None
        if host is None or candidate is None or model in host.paces:
            return
        if has_moved(candidate.first_frame_ms, first_frame_ms) or has_moved(candidate.inter_frame_ms, inter_frame_ms):
            candidate.first_frame_ms, candidate.inter_frame_ms = first_frame_ms, inter_frame_ms
            self._fleet._lists[model].moved(candidate)

    def note_reputation(self, host_id: bytes, reputation: float) -> None:
        """Set the reputation that the host's own coordinator announced."""
        host = self._fleet._hosts.get(host_id)
        for model, candidate in host.candidates.items() if host is not None else ():
            if has_moved(candidate.reputation, reputation):
                candidate.reputation = reputation
                self._fleet._lists[model].moved(candidate)

    def unreachable(self, host_id: bytes) -> None:
        """Give the host no jobs from here until it is announced again: its coordinator is unreachable now."""
        host = self._fleet.get(host_id)
        host.slots.running = host.slots.total
        self._fleet._place(host)

    def forget(self, host_id: bytes) -> None:
        """Set the host offline until it connects here or is announced again."""
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
