"""Poll: the host requests work and waits; it delivers its answers with further requests."""

from comptoir.transports.poll.channel import POLLS_PER_HOST_MAX, PollChannel, wait_for_job

__all__ = ["POLLS_PER_HOST_MAX", "PollChannel", "wait_for_job"]
