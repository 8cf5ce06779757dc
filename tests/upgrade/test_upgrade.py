"""What the proof is made of, without an earlier commit to upgrade from: ``make upgrade-proof FROM=REV`` is the proof
itself."""

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from comptoir.receipts import PREDICATE_TYPE
from tests.chaos.engine import Wanted
from tests.chaos.plan import Order
from tests.chaos.processes import TODAY
from tests.chaos.tables import Tables
from tests.chaos.wire import Seen
from tests.upgrade.__main__ import named, table
from tests.upgrade.episode import TOPOLOGIES, Outcome, cut_off, lost, misunderstood, old_receipts
from tests.upgrade.revision import found_at
from tests.upgrade.stage import Replaced

ORDER = Order(0, 0, "detached", "follows", Wanted("a", 3), 0, True, 0)
SEEN = Seen(0, job="job_aa", accepted=True)


def tables(*, state: str = "completed", error: str | None = None, version: str = PREDICATE_TYPE) -> Tables:
    """Return one job and its receipt, as they are stored."""
    statement: dict[str, Any] = {"predicateType": version, "predicate": {"times": {"settled_ms": 200}}}
    job = {"id": "aa", "state": state, "error_code": error}
    return Tables({"jobs": [job], "receipts": [{"job_id": "aa", "payload": json.dumps(statement).encode()}]})


class TestLost:
    @pytest.mark.parametrize("way", ["detached", "chain"])
    def test_a_job_that_was_left_with_us_and_failed_is_found(self, way: str) -> None:
        order = dataclasses.replace(ORDER, way=way)

        assert [one.job for one in lost([order], [SEEN], tables(state="failed"))] == ["aa"]
        assert list(lost([order], [SEEN], tables())) == []

    def test_one_that_is_nowhere_is_found(self) -> None:
        unknown = Seen(0, job="job_bb", accepted=True)

        assert [one.job for one in lost([ORDER], [unknown], tables())] == ["bb"]

    @pytest.mark.parametrize(
        "change", [{"habit": "cancels"}, {"way": "streamed"}, {"wanted": Wanted("a", 3, trouble="fails")}]
    )
    def test_what_its_buyer_ended_or_brought_about_is_not_lost(self, change: dict[str, Any]) -> None:
        order = dataclasses.replace(ORDER, **change)

        assert list(lost([order], [SEEN], tables(state="failed"))) == []


class TestCutOff:
    def test_an_answer_on_the_line_of_a_killed_coordinator_is_told_by_its_error(self) -> None:
        order = dataclasses.replace(ORDER, way="streamed")

        found = cut_off([order], [SEEN], tables(state="failed", error="coordinator_restarted"))
        assert list(found) == ["streamed coordinator_restarted"]
        assert list(cut_off([order], [SEEN], tables())) == []


class TestOldReceipts:
    def test_an_old_version_is_right_until_the_last_old_coordinator_is_gone(self) -> None:
        counted: Counter[str] = Counter()
        old = tables(version="urn:comptoir:receipt:v0")

        assert list(old_receipts(old, 200, counted)) == []
        assert [one.detail for one in old_receipts(old, 199, counted)] == ["urn:comptoir:receipt:v0"]
        assert list(old_receipts(tables(), 199, counted)) == []
        assert counted == {"urn:comptoir:receipt:v0": 2, PREDICATE_TYPE: 1}


class TestMisunderstood:
    def test_whoever_did_not_understand_another_is_found_by_its_log(self, tmp_path: Path) -> None:
        (tmp_path / "worker0.log").write_text("link lost (the coordinator said goodbye: stopping)\n")
        (tmp_path / "coordinator0.log").write_text("up\nhost host_1 broke the protocol: done after frame 3\n")

        (found,) = misunderstood(tmp_path)
        assert "coordinator0.log: host host_1 broke the protocol" in found.detail


class TestRevision:
    def test_the_code_of_an_interpreter_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(TODAY.root / "src"))

        assert found_at(sys.executable).root == TODAY.root


class TestTable:
    def test_it_says_what_was_replaced_and_what_came_of_it(self) -> None:
        outcome = Outcome("postgres", 7, states={"completed": 3, "failed busy": 1}, seconds=9.0)
        outcome.replaced.append(Replaced("coordinator0", "term", 2.0, 0.5, 4, 5))

        said = table(outcome)
        assert said[0] == "\npostgres, seed 7: 4 jobs in 9 s"
        assert said[2].split() == ["coordinator0", "term", "2.0", "0.50", "4", "5"]
        assert said[-1] == "  books exact, no job lost"

    def test_sqlite_is_upgraded_in_both_ways(self) -> None:
        assert named("sqlite,postgres") == ["sqlite-term", "sqlite-kill", "postgres"]
        assert {"sqlite-term", "sqlite-kill", "postgres"} <= set(TOPOLOGIES)
