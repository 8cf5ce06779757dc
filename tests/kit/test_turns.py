"""Turns of the event loop: who makes much waits for a later one, one piece of each address in turn."""

import asyncio

import pytest

from comptoir.kit.http.turns import PIECE_COST_BYTES, Turns

KIB = 1 << 10
PIECE = 16 * KIB - PIECE_COST_BYTES
"""Sixteen KiB with what a piece costs: ten of them are a turn here."""


async def make(turns: Turns, key: str, pieces: int, made: list[str], *, size: int = PIECE) -> None:
    for _ in range(pieces):
        if (turn := turns.spend(key, size)) is not None:
            await turn
        made.append(key)


async def pieces_by_turn(turns: Turns, *makers: tuple[str, int]) -> list[list[str]]:
    """Let *makers*, an address and its pieces each, all make theirs at once; return what was made in each turn."""
    made: list[str] = []
    tasks = [asyncio.ensure_future(make(turns, key, pieces, made)) for key, pieces in makers]
    by_turn, seen = [], 0
    while not all(task.done() for task in tasks) or len(made) > seen:
        await asyncio.sleep(0)
        if made[seen:]:
            by_turn.append(made[seen:])
        seen = len(made)
    return by_turn


class TestTurns:
    async def test_few_pieces_are_made_at_once(self) -> None:
        turns = Turns(160 * KIB)
        assert [turns.spend("a", PIECE) for _ in range(5)] == [None] * 5

    async def test_many_are_made_in_turns_each_within_its_bytes(self) -> None:
        turns = Turns(160 * KIB)

        by_turn = await pieces_by_turn(turns, *[(f"reader {number}", 10) for number in range(20)])

        assert sum(map(len, by_turn)) == 200
        assert max(map(len, by_turn)) <= 11 and len(by_turn) >= 19
        assert turns.waiting == 0

    async def test_one_address_with_many_readers_delays_another_by_a_piece(self) -> None:
        turns = Turns(160 * KIB)

        by_turn = await pieces_by_turn(turns, *[("many", 20)] * 50, ("one", 20))

        last = max(number for number, made in enumerate(by_turn) if "one" in made)
        assert last <= 21 < len(by_turn)

    @pytest.mark.parametrize("earlier", [0, 5])
    async def test_what_is_larger_than_a_turn_has_one_for_itself(self, earlier: int) -> None:
        turns, made = Turns(160 * KIB), list[str]()
        for _ in range(earlier):
            assert turns.spend("small", PIECE) is None

        large = [asyncio.ensure_future(make(turns, f"{number}", 1, made, size=15 << 20)) for number in range(4)]

        counts = []
        while not all(task.done() for task in large):
            before = len(made)
            await asyncio.sleep(0)
            counts.append(len(made) - before)
        assert len(made) == 4 and max(counts) == 1

    async def test_who_gives_up_is_passed_over(self) -> None:
        turns, made = Turns(160 * KIB), list[str]()
        tasks = [asyncio.ensure_future(make(turns, "a", 5, made)) for _ in range(20)]
        await asyncio.sleep(0)
        assert turns.waiting
        for task in tasks[:-1]:
            task.cancel()

        await tasks[-1]

        assert turns.waiting == 0
