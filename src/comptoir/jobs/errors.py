"""What the jobs room refuses."""

from comptoir.kit.errors import Refusal


class JobRefusal(Refusal):
    """Root of the jobs room's errors."""


class UnknownJob(JobRefusal):
    """No such job, or somebody else's: the two look the same from outside."""

    def __init__(self) -> None:
        super().__init__("no such job")


class AnswerForgotten(JobRefusal):
    """The job is over and its answer was removed after ``retention_days``; its figures and its receipt stay."""

    def __init__(self) -> None:
        super().__init__("the answer is no longer kept; the job's figures and its receipt are")


class JobExists(JobRefusal):
    """A job with this id is there already: two requests with one Idempotency-Key ran side by side."""

    def __init__(self) -> None:
        super().__init__("another request with the same Idempotency-Key is making this job; repeat yours to see it")


class JobFinished(JobRefusal):
    """The job is in a final state already; *state* says which."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the job is already {state}")
        self.state = state


class JobMoved(JobRefusal):
    """Another coordinator owns the job now; what this one knew of it is out of date."""

    def __init__(self) -> None:
        super().__init__("another coordinator has taken the job over")


class NotYourLease(JobRefusal):
    """The host has no open lease on the job (never had, or lost it)."""

    def __init__(self) -> None:
        super().__init__("this host has no open lease on the job")
