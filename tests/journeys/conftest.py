"""What journeys share: a standby, and that what their processes are forked from ends with the tests, and counts."""

from collections.abc import Iterator

import pytest

from tests.journeys.forked import stop_server
from tests.servers import OwnServer
from tests.standby import Standby


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Before the costs are summed up."""
    stop_server()


@pytest.fixture
def standby(own_server: OwnServer) -> Iterator[Standby]:
    """A standby of the test's own server."""
    made = Standby(own_server, own_server._folder / "standby")
    yield made
    made.stop()
