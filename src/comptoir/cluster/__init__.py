"""Several coordinators as one trading post: any of them serves any request, any host's link, any reader.

PostgreSQL decides: an unfinished job has one owner, which changes only by compare-and-set. Messages over the bus may be
lost.
Read it in this order: `switchboard` (messages, live coordinators) -> `fleet_view` (free slots of remote hosts) ->
`offers` (jobs for remote hosts) -> `mirrors` (readers here of jobs elsewhere, and vice versa) -> `failover`
(heartbeats, jobs of dead coordinators, workers that move) -> `forwarding` (requests that only the owner can answer) ->
`resource_sync` (what containers report about themselves) -> `event_news` (numbered events for followers elsewhere) ->
`service` (all of it as `Peers`).

Invariants: only a job's owner decides about it, and every write compares the owner; an outdated view of the others
costs no more than a declined offer. Without the bus, only local hosts are chosen, and waiting jobs and ends are looked
up in the database every second.
Units: seconds; ids are 16 bytes. Knows dispatch and the bus, and HTTP only to forward requests.
"""

from comptoir.cluster.service import Cluster, joined
from comptoir.cluster.single import LOCK_NAME, NotAlone, alone

__all__ = ["LOCK_NAME", "Cluster", "NotAlone", "alone", "joined"]
