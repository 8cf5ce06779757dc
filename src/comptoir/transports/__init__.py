"""Transports: how a host is reached. What the host can do is in its offer, and independent of this.

One folder per transport: `link` (the worker's WebSocket), `poll` (the host asks and waits), `push` (its address is
called). Each opens channels (`dispatch.core.HostChannel`) through which dispatch sends jobs, and turns what comes back
into calls of dispatch.
Invariant: dispatch knows none of them; it asks `hosts.reach` what a transport means for a job.
Knows `dispatch`, the rooms and `link`; the code below does not know HTTP servers and clients.
"""
