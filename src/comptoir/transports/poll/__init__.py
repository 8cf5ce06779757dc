"""Poll: the host asks for work and waits; what it makes it brings with requests of its own."""

from comptoir.transports.poll.channel import POLLS_PER_HOST_MAX, PollChannel, wait_for_job

__all__ = ["POLLS_PER_HOST_MAX", "PollChannel", "wait_for_job"]
