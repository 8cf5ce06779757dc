"""What became of a job that somebody waits for, as the gateway tells it."""

from comptoir.gateway import restarted_elsewhere
from comptoir.jobs import RESTARTED, Fault, JobState
from comptoir.link import Usage
from tests.rooms.jobs.test_live import make_job


class TestBeganAnew:
    def test_a_mirror_that_was_broken_off_has(self) -> None:
        job = make_job()

        job.break_off()

        assert restarted_elsewhere(job)

    def test_a_job_has_not_whose_host_says_so(self) -> None:
        """A host chooses the code that its job ends with: by this one it had a coordinator look for the job for
        ever."""
        job = make_job()

        job.end(
            JobState.FAILED,
            cost_uusd=0,
            usage=Usage(),
            finish_reason="",
            fault=Fault.BUYER,
            error_code=RESTARTED[0],
            error_message="",
            error_status=502,
            error_body=b"",
            retry_after_s=0.0,
            host_id=None,
        )

        assert not restarted_elsewhere(job)
