"""What the state machines of the tests share: how many examples they run, and an event loop of their own.

`make test` runs few examples, always the same ones: enough for each planted bug (tests/proofs/test_planted_bugs.py).
`make proofs` (``--hypothesis-profile=long``) runs many times as many, new ones each time, and prints what fails as
steps that can be run again.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from comptoir.kit.db import Database

T = TypeVar("T")

LONG_TIMES = 15
"""How many times the short form's examples the long one runs."""

GATE_S = 30.0
"""How long a writer is held at most; a machine that forgot to let it go must fail, not hang."""


BEGUN_ANEW_MAX = 2
"""How often a search begins anew after Hypothesis found that the same steps led elsewhere: PostgreSQL may answer two
commands in another order, which is no fault of what is searched."""


def check(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int, shrink: bool = True) -> None:
    """Run *machine*: *examples* runs of at most *steps* steps, or `LONG_TIMES` as many in the long form.

    Without *shrink* the first failure will do: where it is expected, nobody reads it.
    """
    for _ in range(BEGUN_ANEW_MAX):
        with contextlib.suppress(FlakyStrategyDefinition):
            return _run(machine, examples=examples, steps=steps, shrink=shrink)
    return _run(machine, examples=examples, steps=steps, shrink=shrink)


def _run(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int, shrink: bool) -> None:
    long = settings.get_current_profile_name() == "long"
    run_state_machine_as_test(
        machine,
        settings=settings(
            phases=settings().phases if shrink else [Phase.generate],
            max_examples=examples * LONG_TIMES if long else examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=not long,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


class LoopMachine(RuleBasedStateMachine):
    """A machine whose rules drive asynchronous code: the loop stands still between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    def wait(self, work: Awaitable[T]) -> T:
        """Run *work* to its end."""

        async def whole() -> T:
            return await work

        return self.runner.run(whole())

    def teardown(self) -> None:
        self.runner.close()


class Gate:
    """Holds a database's writer, so that what is handed over meanwhile becomes one group."""

    def __init__(self, database: Database) -> None:
        self._entered, self._open = threading.Event(), threading.Event()
        self._held: asyncio.Future[Any] = database.run(lambda tx: self._hold())

    def _hold(self) -> None:
        self._entered.set()
        assert self._open.wait(GATE_S), "nobody let the writer go"

    async def entered(self) -> None:
        """Wait until the writer stands still."""
        while not self._entered.is_set():
            await asyncio.sleep(0)

    def open(self) -> None:
        """Let it go."""
        self._open.set()

    async def passed(self) -> None:
        """Wait until it goes on."""
        await self._held
