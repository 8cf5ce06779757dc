"""When a silent coordinator is given up, and when it is only slow."""

import pytest

from comptoir.worker.link_watch import (
    LINK_SILENT_MAX_S,
    LINK_SILENT_S,
    PING_AFTER_S,
    SLOW_FACTOR,
    TICK_S,
    LinkWatch,
)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def quiet(watch: LinkWatch, time: Time, seconds: float) -> int:
    """Let ticks pass without a sound; return how many pings were asked for."""
    pings = 0
    for _ in range(round(seconds / TICK_S)):
        time.now += TICK_S
        pings += watch.tick()
    return pings


class TestLinkWatch:
    def test_a_link_that_brings_something_is_never_pinged(self) -> None:
        time = Time()
        watch = LinkWatch(time)
        for _ in range(100):
            watch.heard()
            assert quiet(watch, time, PING_AFTER_S - TICK_S) == 0
            assert not watch.silent

    def test_a_quiet_one_is_pinged_once_until_it_answers(self) -> None:
        time = Time()
        watch = LinkWatch(time)

        assert quiet(watch, time, 2 * PING_AFTER_S) == 1
        watch.ponged()
        assert not watch.silent
        assert quiet(watch, time, 2 * PING_AFTER_S) == 1

    def test_a_silent_one_is_given_up_after_the_bound(self) -> None:
        time = Time()
        watch = LinkWatch(time)

        quiet(watch, time, LINK_SILENT_S - TICK_S)
        assert not watch.silent
        quiet(watch, time, TICK_S)
        assert watch.silent

    def test_a_loop_that_was_held_up_itself_accuses_nobody(self) -> None:
        """Ten seconds went by in one tick; what came meanwhile is read before the next."""
        time = Time()
        watch = LinkWatch(time)
        quiet(watch, time, PING_AFTER_S)
        time.now += 10.0
        watch.tick()

        assert not watch.silent
        watch.heard()
        watch.tick()
        assert not watch.silent

    @pytest.mark.parametrize("pong_s", [0.01, 0.5, 1.5, 60.0])
    def test_a_slow_one_gets_more_time_up_to_a_bound(self, pong_s: float) -> None:
        time = Time()
        watch = LinkWatch(time)
        quiet(watch, time, PING_AFTER_S)
        time.now += pong_s
        watch.ponged()

        assert watch.patience_s == min(LINK_SILENT_MAX_S, max(LINK_SILENT_S, SLOW_FACTOR * pong_s))

    def test_a_slow_moment_is_forgotten(self) -> None:
        time = Time()
        watch = LinkWatch(time)
        for pong_s in (2.0, *[0.01] * 20):
            quiet(watch, time, PING_AFTER_S)
            time.now += pong_s
            watch.ponged()
            watch.tick()

        assert watch.patience_s == LINK_SILENT_S
