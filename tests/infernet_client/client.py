"""The official client as tests use it: one process for the session, a call at a time, errors as values."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("driver.py")

START_S = 60
"""web3 takes three seconds of a CPU to be imported, and CPUs here are shared."""

CALL_S = 60
"""A bound against hanging; the client's own time limits are 1 to 10 s, but for streams."""


@dataclass(frozen=True)
class ClientError:
    """What the client raised."""

    type: str
    status: int | None
    """HTTP status, when there was one."""
    message: str
    params: dict[str, Any] | None
    yielded: tuple[str, ...] = ()
    """What a stream had given before."""


class OfficialClient:
    """Infernet's `NodeClient` in a process of its own."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lock = threading.Lock()
        assert self._line(START_S) == {"ready": True}

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    async def __call__(self, url: str, call: str, **arguments: Any) -> Any:
        """Call a method of the client at *url* and return its result, or the `ClientError` that it raised."""
        (outcome,) = await self.repeat(url, call, **arguments)
        return outcome

    async def repeat(self, url: str, call: str, *, times: int = 1, at_once: int = 1, **arguments: Any) -> list[Any]:
        """Do the same *times* times, *at_once* at a time; return all outcomes."""
        request = {"url": url, "call": call, "arguments": arguments, "times": times, "at_once": at_once}
        outcomes = await asyncio.to_thread(self._ask, request)
        return [_outcome(one) for one in outcomes]

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._line(CALL_S)

    def _line(self, bound_s: float) -> Any:
        assert self._process.stdout is not None
        guard = threading.Timer(bound_s, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        assert line, "the official client's process ended (its words are on stderr)"
        return json.loads(line)


def _outcome(found: dict[str, Any]) -> Any:
    error = found.get("error")
    return found["result"] if error is None else ClientError(**error, yielded=tuple(found["result"]))


@pytest.fixture(scope="session")
def official_client(infernet_python: str) -> Iterator[OfficialClient]:
    """Give Infernet's official client."""
    client = OfficialClient(infernet_python)
    yield client
    client.close()
