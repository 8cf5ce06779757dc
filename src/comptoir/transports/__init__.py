"""Transports: how a host is reached. What it can do is in its offer, and says nothing about this.

One folder per way: `link` (the worker's WebSocket), `poll` (the host asks and waits), `push` (its address is called). Each opens
channels (`dispatch.core.HostChannel`) that the verbs hand jobs to, and turns what comes back into calls of the verbs.
Invariant: no verb knows one of them; what a way of reaching a host means for a job is asked of `hosts`.
Knows `dispatch`, the rooms and `link`; web servers and clients begin here.
"""
