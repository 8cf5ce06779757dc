"""Hosts that say again and again that they are busy are passed over for a while: each time, a buyer waited for it.

A host that is the only one of all its models is never passed over: its buyers have nowhere else to go.
"""

from comptoir.hosts.fleet import Fleet

REST_FIRST_S, REST_MAX_S = 0.25, 15.0
"""How long a host is passed over that said twice in a row that it is busy, doubled each time it says so again."""


class RestingHosts:
    """The part of the fleet that is passed over."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def note_busy(self, host_id: bytes) -> float:
        """Note that the host was given a job and said it is busy; return for how many seconds it is passed over now.

        0: it is not, because it is the first time since it last answered, because it is passed over already, or because
        no other host offers what it does. Call `rested` when the time is over.
        """
        host = self._fleet._hosts.get(host_id)
        if host is None or host.node_id or host.rests:
            return 0.0
        host.busy_row += 1
        if host.busy_row == 1 or all(self._fleet._lists[model].hosts_here < 2 for model in host.candidates):
            return 0.0
        host.rests = True
        self._fleet._place(host)
        return min(REST_MAX_S, REST_FIRST_S * 2.0 ** min(host.busy_row - 2, 16))

    def rested(self, host_id: bytes) -> None:
        """Give a host jobs again that was passed over."""
        host = self._fleet.find(host_id)
        if host is not None and host.rests:
            host.rests = False
            self._fleet._place(host)
