"""Follows a job to its end over as many connections as it takes."""

import json
import time
from typing import Any
from urllib.parse import quote

from comptoir.cli.answer import PASSING, PAUSES_S, RESTARTED
from comptoir.cli.api import Api, sse_events
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.work.outcome import WorkOutcome
from comptoir.cli.work.screen import WorkScreen


class JobReader:
    """Reads the frames of one job, and goes on behind the last one where a connection broke."""

    def __init__(self, api: Api, job_id: str, screen: WorkScreen, *, again_for_s: float) -> None:
        """
        Args:
            again_for_s: how long it is tried again without anything new coming.
        """
        self.outcome = WorkOutcome()
        self._api, self._screen, self._again_for_s = api, screen, again_for_s
        self._job_id = job_id
        self._path = f"/house/jobs/{quote(job_id, safe='')}"
        self._last_id = ""
        self._broken_s = 0.0
        """Monotonic time since which nothing new came; 0: it flows."""
        self._tries = 0

    def read(self) -> None:
        """Read it to its end, which is then the outcome's.

        Raises:
            Failure: refused, or broken off for too long.
        """
        while not self.outcome.end:
            try:
                self._read_once()
            except Failure as failure:
                self._wait_to_go_on(failure)

    def cancel(self) -> None:
        """Stop the job; one that is over is left alone.

        Raises:
            Failure: nobody could be told, so that the job may still run.
        """
        try:
            self._api.call("POST", f"{self._path}/cancel")
        except Failure as failure:
            if failure.status != 409:
                hint = f"stop it with: comptoir jobs cancel {self._job_id}"
                raise Failure(f"the job may still run: {failure.message}", hint, code=failure.code) from failure

    def _read_once(self) -> None:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        with self._api.exchange("GET", f"{self._path}/frames", headers=headers) as response:
            for event in sse_events(response):
                said = _decoded(event.data)
                if event.name == "end":
                    self.outcome.end = said
                    return
                if event.name == "error":
                    self._begin_anew(said)
                    return
                self._last_id = event.id
                self._broken_s, self._tries = 0.0, 0
                self._take(said)
        raise Failure("the connection broke off", code=Exit.UNREACHABLE)

    def _take(self, frame: dict[str, Any]) -> None:
        again = self.outcome.begun_again
        written = self.outcome.take(frame)
        if self.outcome.begun_again > again:
            self._screen.say("the host was lost: another one began again from the start, and you pay for that alone")
        if self.outcome.contradicted:
            self._screen.say("what follows is the new output from its start: it is not what the lost host wrote")
        for stream, text in written:
            self._screen.write(stream, text)
        self._screen.moved(self.outcome)

    def _begin_anew(self, said: dict[str, Any]) -> None:
        if said.get("code") != RESTARTED:
            raise Failure(f"the stream ended early: {said.get('message', 'unknown error')}", self._hint())
        self._screen.say("host and coordinator were lost together: the job was restarted")
        self._last_id = ""
        self.outcome.told_again()

    def _wait_to_go_on(self, failure: Failure) -> None:
        if failure.code != Exit.UNREACHABLE and failure.status not in PASSING:
            raise failure
        self._broken_s = self._broken_s or time.monotonic()
        for_s = time.monotonic() - self._broken_s
        if for_s > self._again_for_s:
            raise Failure(failure.message, self._hint(), code=failure.code, status=failure.status)
        self._screen.broke(for_s)
        time.sleep(PAUSES_S[min(self._tries, len(PAUSES_S) - 1)])
        self._tries += 1

    def _hint(self) -> str:
        return f"the job goes on without you; see the rest with: comptoir jobs follow {self._job_id}"


def _decoded(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure(f"the server sent something other than a JSON object: {data[:100]!r}", "is it a trading post?")
    return found
