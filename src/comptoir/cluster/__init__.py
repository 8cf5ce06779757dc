"""Several coordinators as one trading post: any of them takes any request, any host's link, any reader.

PostgreSQL decides: an unfinished job has one owner, and changes it by compare-and-set only. The bus carries news that may
be lost.
Read it in this order: `switchboard` (messages, who is here) -> `fleet_view` (whose hosts have free slots) -> `offers` (a job
goes to a host elsewhere) -> `mirrors` (readers here of jobs there, and the other way round) -> `failover` (signs of life, jobs of
the dead, workers that come over) -> `forwarding` (requests that only the owner can answer) -> `resource_sync` (what containers
say of themselves) -> `event_news` (numbered events, to where somebody follows them) -> `service` (all of it as `Peers`).

Invariants: what is decided here is decided by the owner, and written comparing the owner; a wrong view of the others costs an offer
that is declined. Losing the bus: only own hosts are chosen, waiting jobs and ends are looked for in the database every second.
Units: seconds; ids are 16 bytes. Knows dispatch and the bus, no HTTP but what it forwards.
"""

from comptoir.cluster.service import Cluster, joined
from comptoir.cluster.single import LOCK_NAME, NotAlone, alone

__all__ = ["LOCK_NAME", "Cluster", "NotAlone", "alone", "joined"]
