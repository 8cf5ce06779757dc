"""The order of files: those that take longest first, so that at the end all processes of a run have short ones left.

Without the list xdist begins with the files that have the most tests, and the longest have few.
"""

import pytest

LONGEST = (
    "tests/cli/cluster/test_drain.py",
    "tests/journeys/test_kill.py",
    "tests/web/test_page.py",
    "tests/clients/test_libraries.py",
    "tests/journeys/test_containers_killed.py",
    "tests/kit/test_db_lost.py",
    "tests/cluster/test_moving.py",
    "tests/cluster/test_any_coordinator.py",
    "tests/cli/cluster/test_local.py",
    "tests/cli/test_up.py",
    "tests/chaos/test_cluster.py",
    "tests/cli/cluster/test_up_cluster.py",
    "tests/cli/test_reconnect.py",
    "tests/chaos/test_chaos.py",
    "tests/cli/test_run.py",
    "tests/dialects/test_schemathesis.py",
    "tests/cluster/test_containers.py",
    "tests/journeys/test_every_position.py",
    "tests/dialects/infernet/test_official_client.py",
)
"""Half of the time of a run, by the seconds that `make test ARGS="--costs 30"` prints."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST` first, then those with the most tests."""
    gone = [path for path in LONGEST if not (config.rootpath / path).is_file()]
    if gone:
        raise pytest.UsageError(f"tests/order.py names files that are gone: {', '.join(gone)}")
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path.relative_to(config.rootpath).as_posix(), []).append(item)
    first = {path: number for number, path in enumerate(LONGEST)}
    ordered = sorted(files, key=lambda path: (first.get(path, len(first)), -len(files[path])))
    items[:] = [item for path in ordered for item in files[path]]
