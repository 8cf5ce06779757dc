"""What the journeys' processes are forked from ends with the tests, and counts."""

import pytest

from tests.journeys.forked import stop_server


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Before the costs are summed up."""
    stop_server()
