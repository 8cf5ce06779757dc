"""The waiting queue: first come, first served per model, as fast with a million in line as with a thousand."""

import gc
import time
from collections.abc import Callable

from comptoir.jobs import Queue, Waiting
from comptoir.jobs.queue import SCAN_MAX


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def anyone(entry: Waiting) -> bool:
    return True


def filled(count: int, *, model: str = "m") -> Queue:
    queue = Queue()
    for number in range(count):
        queue.push(job_id=key(number), model=model, terms=number)
    return queue


def taken(queue: Queue, models: tuple[str, ...] = ("m",), accept: Callable[[Waiting], bool] = anyone) -> int | None:
    entry = queue.take(models, accept)
    return None if entry is None else int.from_bytes(entry.job_id, "big")


class TestTake:
    def test_the_oldest_goes_first(self) -> None:
        queue = filled(5)

        assert [taken(queue) for _ in range(6)] == [0, 1, 2, 3, 4, None]
        assert len(queue) == 0

    def test_over_several_models_too(self) -> None:
        queue = Queue()
        for number, model in enumerate("abacb"):
            queue.push(job_id=key(number), model=model, terms=None)

        assert [taken(queue, ("b", "a")) for _ in range(5)] == [0, 1, 2, 4, None]
        assert taken(queue, ("c",)) == 3

    def test_what_the_host_may_not_take_is_passed_over_and_keeps_its_place(self) -> None:
        queue = filled(4)

        assert taken(queue, accept=lambda entry: entry.terms == 2) == 2
        assert [taken(queue) for _ in range(3)] == [0, 1, 3]

    def test_an_older_one_behind_a_refused_head_beats_a_younger_head(self) -> None:
        queue = Queue()
        for number, model in enumerate("aaab"):
            queue.push(job_id=key(number), model=model, terms=number)

        assert taken(queue, ("b", "a"), lambda entry: entry.terms != 0) == 1

    def test_it_looks_at_so_many_and_no_more(self) -> None:
        queue, looked = filled(SCAN_MAX * 3), []

        assert taken(queue, accept=lambda entry: bool(looked.append(entry))) is None
        assert len(looked) == SCAN_MAX

    def test_a_model_nobody_waits_for_gives_nothing(self) -> None:
        assert taken(filled(1), ("other",)) is None


class TestPush:
    def test_it_says_how_many_are_before(self) -> None:
        queue = Queue()

        assert [queue.push(job_id=key(n), model="m", terms=None) for n in range(3)] == [0, 1, 2]
        assert queue.push(job_id=key(9), model="other", terms=None) == 0

    def test_one_that_had_its_turn_goes_to_the_head(self) -> None:
        queue = filled(3)

        assert queue.push(job_id=key(9), model="m", terms=None, first=True) == 0

        assert [taken(queue) for _ in range(4)] == [9, 0, 1, 2]

    def test_the_head_keeps_its_turn_over_other_models(self) -> None:
        queue = filled(2, model="a")
        queue.push(job_id=key(5), model="b", terms=None)
        queue.push(job_id=key(9), model="a", terms=None, first=True)

        assert [taken(queue, ("b", "a")) for _ in range(4)] == [9, 0, 1, 5]


class TestRemove:
    def test_it_is_skipped_and_not_counted(self) -> None:
        queue = filled(4)

        assert queue.remove(key(0))
        assert queue.remove(key(2))
        assert not queue.remove(key(2))

        assert (len(queue), queue.models()) == (2, {"m": 2})
        assert [taken(queue) for _ in range(3)] == [1, 3, None]

    def test_those_behind_move_up(self) -> None:
        queue = filled(4)
        queue.remove(key(0))

        assert [queue.before(key(number)) for number in range(4)] == [None, 0, 1, 2]
        taken(queue)
        assert [queue.before(key(number)) for number in (2, 3)] == [0, 1]

    def test_a_line_that_ran_empty_is_forgotten_and_opened_anew(self) -> None:
        queue = filled(2)
        queue.remove(key(0))
        queue.remove(key(1))
        assert taken(queue) is None

        assert queue.push(job_id=key(7), model="m", terms=None) == 0
        assert (queue.before(key(7)), taken(queue)) == (0, 7)


class TestSize:
    def test_a_claim_is_as_fast_with_two_hundred_thousand_in_line_as_with_a_thousand(self) -> None:
        """Counted in the same run; ten times leaves room for caches and a busy machine, a scan would be two hundred."""

        def claims_s(queue: Queue) -> float:
            best = float("inf")
            for _ in range(5):
                before = time.perf_counter()
                for _ in range(100):
                    queue.take(("m",), anyone)
                best = min(best, time.perf_counter() - before)
            return best

        small, large = filled(1_000), filled(200_000)
        gc.collect()

        assert claims_s(large) < 10 * claims_s(small)

    def test_and_removing_from_the_middle_of_it_costs_no_more(self) -> None:
        queue, accepted = filled(100_000), []
        for number in range(1, 100_000):
            queue.remove(key(number))

        assert taken(queue, accept=lambda entry: not accepted.append(entry)) == 0
        assert len(accepted) == 1
        assert taken(queue) is None
