"""The errors of the jobs room."""

from comptoir.kit.errors import Refusal

ANSWER_LOST_MESSAGE = (
    "the database of this trading post lost this job's last commits, and its answer with them; what was paid stands, "
    "as its receipt says"
)
"""What is said of a job that was brought back by its receipt."""


class JobRefusal(Refusal):
    """Root of the jobs room's errors."""


class UnknownJob(JobRefusal):
    """No such job, or somebody else's: a caller can't tell which."""

    def __init__(self) -> None:
        super().__init__("no such job")


class AnswerForgotten(JobRefusal):
    """The job is over and its answer was deleted after ``retention_days``; its figures and its receipt are kept."""

    def __init__(self) -> None:
        super().__init__("the answer is no longer kept; the job's figures and its receipt are")


class AnswerLost(AnswerForgotten):
    """The database lost the job's last commits; its receipt was brought back since, its answer could not be."""

    def __init__(self) -> None:
        JobRefusal.__init__(self, ANSWER_LOST_MESSAGE)


class JobExists(JobRefusal):
    """A job with this id exists already: two requests with one Idempotency-Key ran concurrently."""

    def __init__(self) -> None:
        super().__init__("another request with the same Idempotency-Key is making this job; repeat yours to see it")


class JobFinished(JobRefusal):
    """The job is already in a final state, *state*."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the job is already {state}")
        self.state = state


class JobMoved(JobRefusal):
    """Another coordinator owns the job now; this one's view of it is out of date."""

    def __init__(self) -> None:
        super().__init__("another coordinator has taken the job over")


class NotYourLease(JobRefusal):
    """The host has no open lease on the job (it never had one, or it was revoked)."""

    def __init__(self) -> None:
        super().__init__("this host has no open lease on the job")
