"""Ranking: exact, explained, and every strategy does what its name says."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comptoir.routing import (
    PREFERENCES,
    Candidate,
    FreeList,
    Spec,
    UnknownPreference,
    choose,
    passes,
    possible,
    preference_named,
    rank,
)
from comptoir.routing.blocks import BLOCK_MAX, SortedBlocks
from comptoir.routing.freelist import IDLE_UPDATES_MIN, PREFIX_HOSTS_MAX, PREFIXES_MAX
from comptoir.routing.score import ANSWER_SIZES, PROMPT_SIZES, size_of
from comptoir.routing.testing import (
    give,
    make_candidate,
    make_free_list,
    make_host_id,
    make_spec,
    rank_naively,
    take_back,
)

TOOLS, VISION = frozenset(["tools"]), frozenset(["vision"])
candidates = st.builds(
    make_candidate,
    able=st.sampled_from([frozenset(), TOOLS, TOOLS | {"schema"}]),
    lacking=st.sampled_from([frozenset(), VISION]),
    slots=st.integers(1, 12),
    price=st.sampled_from([0, 100_000, 1_000_000, 1_100_000, 9_000_000]),
    first_frame_ms=st.sampled_from([50.0, 200.0, 210.0, 3000.0]),
    inter_frame_ms=st.sampled_from([5.0, 20.0, 21.0, 80.0]),
    reputation=st.sampled_from([0.1, 0.25, 0.5, 0.9]),
    region=st.sampled_from(["eu", "us", ""]),
    vram_mib=st.sampled_from([0, 8_000, 24_000]),
    context_tokens=st.sampled_from([512, 4096, 32_768]),
)
specs = st.builds(
    make_spec,
    prompt_tokens=st.sampled_from([0, 100, 3000, 20_000]),
    max_tokens=st.sampled_from([1, 64, 300, 3000]),
    price_cap_uusd=st.sampled_from([None, None, 0, 50, 3000]),
    region=st.sampled_from(["", "", "eu", "mars"]),
    vram_mib=st.sampled_from([0, 0, 16_000]),
    min_reputation=st.sampled_from([0.0, 0.0, 0.3]),
    allow=st.one_of(st.none(), st.frozensets(st.integers(1, 12).map(make_host_id))),
    deny=st.frozensets(st.integers(1, 12).map(make_host_id), max_size=3),
    prefix_key=st.sampled_from([None, b"a", b"b"]),
    capabilities=st.sampled_from([frozenset(), frozenset(), TOOLS, VISION, TOOLS | {"schema"}]),
)
happenings = st.sampled_from(["give", "back", "move", "leave", "join"])
events = st.lists(st.tuples(happenings, st.integers(0, 30), specs), max_size=30)


def numbered(made: list[Candidate]) -> list[Candidate]:
    for n, candidate in enumerate(made, 1):
        candidate.host_id, candidate.order = make_host_id(n), n
    return made


def happen(free: FreeList, candidate: Candidate, what: str, spec: Spec) -> None:
    here = candidate.host_id in free.all
    if what == "give" and here and candidate.slots.free:
        give(free, candidate, prefix_key=spec.prefix_key)
    elif what == "back" and here and candidate.slots.running:
        take_back(free, candidate)
    elif what == "move" and here:
        candidate.first_frame_ms *= 1.5
        candidate.context_tokens *= 2
        candidate.reputation = min(1.0, candidate.reputation + 0.2)
        candidate.able, candidate.lacking = candidate.able ^ TOOLS, candidate.lacking ^ VISION
        free.moved(candidate)
    elif what == "leave":
        free.remove(candidate.host_id)
    elif what == "join" and not here:
        free.add(candidate)


class TestRank:
    @given(made=st.lists(candidates, min_size=1, max_size=12).map(numbered), story=events, limit=st.integers(1, 4))
    @settings(max_examples=200, deadline=None)
    def test_equals_looking_at_every_host(
        self, made: list[Candidate], story: list[tuple[str, int, Spec]], limit: int
    ) -> None:
        free = make_free_list(made)

        for what, which, spec in story:
            happen(free, made[which % len(made)], what, spec)
            assert possible(spec, free) == any(passes(spec, candidate) for candidate in free.all.values())
            for preference in PREFERENCES.values():
                expected = rank_naively(spec, free, preference, limit=limit)
                assert [each.candidate for each in rank(spec, free, preference, limit=limit)] == expected
                assert choose(spec, free, preference) is (expected[0] if expected else None)

    def test_equals_looking_at_every_host_over_many_blocks(self) -> None:
        made = [
            make_candidate(
                n=n,
                price=n * 7919 % 5000 * 1000,
                region="eu" if n % 997 else "mars",
                slots=1 + n % 3,
                able=frozenset() if n % 1999 else TOOLS,
                lacking=VISION,
            )
            for n in range(1, 4 * BLOCK_MAX)
        ]
        free = make_free_list(made)
        preference = preference_named("cheapest")
        for candidate in made[::3]:
            give(free, candidate)
        for candidate in made[::6]:
            take_back(free, candidate)

        asked = [make_spec(capabilities=TOOLS), make_spec(capabilities=VISION), make_spec(capabilities=frozenset("x"))]
        asked += [make_spec(), make_spec(region="mars"), make_spec(price_cap_uusd=40), make_spec(region="moon")]
        for spec in asked:
            found = [each.candidate for each in rank(spec, free, preference, limit=3)]
            assert found == rank_naively(spec, free, preference, limit=3)

    def test_changes_no_candidate(self) -> None:
        made = [make_candidate(n=n, running=n) for n in (1, 2)]
        free = make_free_list(made)
        before = [(c.turn, c.picks, c.virtual_time, c.slots.running, c.slots.free) for c in made]

        for preference in PREFERENCES.values():
            rank(make_spec(), free, preference, limit=2)

        assert [(c.turn, c.picks, c.virtual_time, c.slots.running, c.slots.free) for c in made] == before

    def test_a_full_host_waits_until_a_slot_is_free(self) -> None:
        only = make_candidate(slots=1)
        free = make_free_list([only])
        balanced = preference_named("balanced")

        give(free, only)
        assert rank(make_spec(), free, balanced) == []
        take_back(free, only)
        assert choose(make_spec(), free, balanced) is only

    def test_the_reasons_sum_to_the_score_and_are_told_in_words(self) -> None:
        free = make_free_list([make_candidate()])
        give(free, free.all[make_host_id(1)], prefix_key=b"a")

        spec = make_spec(prompt_tokens=1000, max_tokens=100, prefix_key=b"a")
        ranked = rank(spec, free, preference_named("balanced"))[0]

        assert set(ranked.reasons) == {"price", "finish", "reputation", "load", "prefix"}
        assert sum(ranked.reasons.values()) == pytest.approx(ranked.score)
        assert (ranked.cost_max_uusd, ranked.finish_ms) == (1000 // 4 + 100, 200 + 100 * 20)
        for words in ("$0.00035", "2.2 s", "reputation 0.50", "1 of 4 slots", "same beginning"):
            assert words in ranked.sentence

    def test_who_lately_served_the_same_beginning_is_preferred_until_forgotten(self) -> None:
        first, second = make_candidate(n=1), make_candidate(n=2, price=1_100_000)
        free = make_free_list([first, second])
        give(free, second, prefix_key=b"a")
        balanced = preference_named("balanced")

        assert choose(make_spec(prefix_key=b"a"), free, balanced) is second
        assert choose(make_spec(prefix_key=b"b"), free, balanced) is first
        assert choose(make_spec(), free, balanced) is first


class TestCapabilities:
    @pytest.mark.parametrize("name", PREFERENCES)
    def test_who_has_them_comes_first_under_every_strategy(self, name: str) -> None:
        unknown = [make_candidate(n=n, price=1, first_frame_ms=1) for n in (1, 2)]
        able = make_candidate(n=3, price=9_000_000, running=3, able=TOOLS)
        free = make_free_list([*unknown, able])

        found = rank(make_spec(capabilities=TOOLS), free, preference_named(name), limit=3)

        assert found[0].candidate is able and len(found) == 3

    def test_a_newcomers_word_puts_it_before_no_proven_host(self) -> None:
        proven = make_candidate(n=1)
        free = make_free_list([proven, make_candidate(n=2, reputation=0.25, able=TOOLS)])

        assert choose(make_spec(capabilities=TOOLS), free, preference_named("cheapest")) is proven

    def test_a_host_with_the_beginning_in_its_cache_does_not_pass_one_that_is_able(self) -> None:
        cached, able = make_candidate(n=1), make_candidate(n=2, able=TOOLS)
        free = make_free_list([cached, able])
        give(free, cached, prefix_key=b"a")

        assert choose(make_spec(capabilities=TOOLS, prefix_key=b"a"), free, preference_named("balanced")) is able


class TestFreeList:
    def test_a_change_that_only_a_filter_sees_is_seen(self) -> None:
        """The key stays the same, but the bounds of the block would hide the host."""
        candidate = make_candidate(context_tokens=100)
        free = make_free_list([candidate])
        spec, balanced = make_spec(prompt_tokens=1000), preference_named("balanced")
        assert choose(spec, free, balanced) is None

        candidate.context_tokens = 10_000
        free.moved(candidate)

        assert choose(spec, free, balanced) is candidate

    def test_who_joins_a_list_in_use_is_found_by_its_rare_gift(self) -> None:
        free = make_free_list([make_candidate(n=n, lacking=VISION) for n in range(1, 5)])
        wishes = [
            (make_spec(price_cap_uusd=10), {"price": 1000}),
            (make_spec(region="mars"), {"region": "mars"}),
            (make_spec(vram_mib=90_000), {"vram_mib": 90_000}),
            (make_spec(prompt_tokens=90_000), {"context_tokens": 100_000}),
            (make_spec(min_reputation=0.9), {"reputation": 0.9}),
            (make_spec(capabilities=VISION), {"able": VISION, "lacking": frozenset()}),
        ]
        fastest = preference_named("fastest")

        for n, (spec, gift) in enumerate(wishes, 10):
            assert choose(spec, free, fastest) is None
            gifted = make_candidate(n=n, **{"lacking": VISION, **gift})  # type: ignore[arg-type]
            free.add(gifted)
            assert choose(spec, free, fastest) is gifted

    def test_remembers_the_latest_hosts_of_the_latest_beginnings(self) -> None:
        made = [make_candidate(n=n, slots=9) for n in range(1, PREFIX_HOSTS_MAX + 3)]
        free = make_free_list(made)
        for candidate in made:
            give(free, candidate, prefix_key=b"a")
        assert free.holders(b"a") == tuple(made[2:])

        free.remove(made[-1].host_id)
        assert free.holders(b"a") == tuple(made[2:-1])
        for n in range(PREFIXES_MAX):
            free.took(made[0], b"%d" % n)
        assert free.holders(b"a") == () and free.holders(b"0") == (made[0],)

    def test_a_list_nobody_asks_for_is_dropped_and_made_again(self) -> None:
        one, two = make_candidate(n=1, slots=1), make_candidate(n=2, price=2_000_000)
        free = make_free_list([one, two])
        cheapest = preference_named("cheapest")
        assert choose(make_spec(), free, cheapest) is one

        for _ in range(IDLE_UPDATES_MIN):
            give(free, one)
            take_back(free, one)
        assert free.lists_kept == 0

        give(free, one)
        assert choose(make_spec(), free, cheapest) is two


class TestStrategies:
    def shares(self, free: FreeList, name: str, jobs: int, *, keep: bool = False) -> list[bytes]:
        order = []
        for _ in range(jobs):
            chosen = choose(make_spec(), free, preference_named(name))
            assert chosen is not None
            order.append(chosen.host_id)
            give(free, chosen)
            if not keep:
                take_back(free, chosen)
        return order

    def test_round_robin_takes_turns_whatever_the_hosts_are_like(self) -> None:
        free = make_free_list([make_candidate(n=n, price=n * 100_000, slots=n) for n in (1, 2, 3)])

        assert self.shares(free, "round_robin", 6) == [make_host_id(n) for n in (1, 2, 3, 1, 2, 3)]

    def test_round_robin_does_not_wait_for_a_full_host(self) -> None:
        free = make_free_list([make_candidate(n=n, slots=1 if n == 2 else 9) for n in (1, 2, 3)])

        order = self.shares(free, "round_robin", 6, keep=True)

        assert order == [make_host_id(n) for n in (1, 2, 3, 1, 3, 1)]

    def test_equal_weighted_gives_a_host_that_was_full_what_it_missed(self) -> None:
        """That is the difference from round robin: the number of jobs is equal in the end, not the turns."""
        small, big = make_candidate(n=1, slots=1), make_candidate(n=2, slots=9)
        free = make_free_list([small, big])
        self.shares(free, "equal_weighted", 4, keep=True)
        assert (small.picks, big.picks) == (1, 3)
        take_back(free, small)

        assert self.shares(free, "equal_weighted", 3) == [make_host_id(n) for n in (1, 1, 1)]

    def test_equal_weighted_lets_a_newcomer_start_level(self) -> None:
        old = [make_candidate(n=n) for n in (1, 2)]
        free = make_free_list(old)
        self.shares(free, "equal_weighted", 20)

        free.add(make_candidate(n=3))

        assert Counter(self.shares(free, "equal_weighted", 30))[make_host_id(3)] in (10, 11)

    def test_weighted_round_robin_is_in_proportion_to_slots_and_interleaved(self) -> None:
        free = make_free_list([make_candidate(n=1, slots=1), make_candidate(n=2, slots=3)])

        order = self.shares(free, "weighted_round_robin", 40)

        assert Counter(order) == {make_host_id(1): 10, make_host_id(2): 30}
        assert all(Counter(order[at : at + 4])[make_host_id(1)] == 1 for at in range(0, 40, 4))

    def test_weighted_round_robin_lets_a_newcomer_start_level(self) -> None:
        free = make_free_list([make_candidate(n=1)])
        self.shares(free, "weighted_round_robin", 20)

        free.add(make_candidate(n=2))

        assert Counter(self.shares(free, "weighted_round_robin", 11)) == {make_host_id(1): 5, make_host_id(2): 6}

    def test_weighted_round_robin_gives_no_burst_to_who_was_full(self) -> None:
        one, two = make_candidate(n=1, slots=1), make_candidate(n=2, slots=1)
        free = make_free_list([one, two])
        give(free, one)
        self.shares(free, "weighted_round_robin", 20)

        take_back(free, one)

        assert Counter(self.shares(free, "weighted_round_robin", 11)) == {make_host_id(1): 6, make_host_id(2): 5}

    def test_least_connections_counts_jobs_not_their_share_of_the_slots(self) -> None:
        free = make_free_list([make_candidate(n=1, slots=64, running=3), make_candidate(n=2, slots=4, running=2)])

        assert self.shares(free, "least_connections", 1) == [make_host_id(2)]

    def test_least_response_time_looks_at_the_first_frame_only(self) -> None:
        quick = make_candidate(n=1, first_frame_ms=90, inter_frame_ms=100, price=9_000_000)
        free = make_free_list([quick, make_candidate(n=2, first_frame_ms=100, inter_frame_ms=1, price=0)])

        assert self.shares(free, "least_response_time", 1) == [make_host_id(1)]

    def test_fastest_looks_at_the_last_frame(self) -> None:
        late_but_quick = make_candidate(n=2, first_frame_ms=1000, inter_frame_ms=1, price=9_000_000)
        free = make_free_list([make_candidate(n=1, first_frame_ms=90, inter_frame_ms=100, price=0), late_but_quick])

        assert self.shares(free, "fastest", 1) == [make_host_id(2)]

    def test_cheapest_takes_the_lower_price_whatever_else(self) -> None:
        cheap = make_candidate(n=2, price=999_996, reputation=0.5, inter_frame_ms=900)
        free = make_free_list([make_candidate(n=1, price=1_000_000, reputation=1.0), cheap])

        assert self.shares(free, "cheapest", 1) == [make_host_id(2)]

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            ({"price": 500_000}, {"price": 2_000_000}),
            ({"inter_frame_ms": 10.0}, {"inter_frame_ms": 60.0}),
            ({"reputation": 0.9}, {"reputation": 0.2}),
            ({"running": 0}, {"running": 3}),
        ],
    )
    def test_balanced_prefers_each_good_thing(self, better: dict[str, float], worse: dict[str, float]) -> None:
        free = make_free_list([make_candidate(n=1, **worse), make_candidate(n=2, **better)])  # type: ignore[arg-type]

        assert self.shares(free, "balanced", 1) == [make_host_id(2)]

    def test_an_unknown_name_lists_those_that_exist(self) -> None:
        with pytest.raises(UnknownPreference, match="balanced, cheapest, fastest, round_robin"):
            preference_named("random")


class TestSizeOf:
    @pytest.mark.parametrize(
        ("prompt", "answer", "expected"),
        [(0, 0, (512, 64)), (2048, 181, (512, 64)), (2049, 182, (8192, 512)), (10**6, 10**6, (8192, 4096))],
    )
    def test_takes_the_nearest_by_ratio(self, prompt: int, answer: int, expected: tuple[int, int]) -> None:
        size = size_of(make_spec(prompt_tokens=prompt, max_tokens=answer))

        assert (size.input_units, size.output_units) == expected
        assert expected[0] in PROMPT_SIZES and expected[1] in ANSWER_SIZES


class TestSortedBlocks:
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=3000))
    @settings(max_examples=20, deadline=None)
    def test_stays_sorted_through_inserts_and_deletes(self, story: list[tuple[bool, int]]) -> None:
        blocks = SortedBlocks()
        held = {}
        candidate = make_candidate()

        for add, n in story:
            if add and n not in held:
                held[n] = (float(n % 50), 0.0, n, candidate)
                blocks.insert(held[n])
            elif not add and n in held:
                blocks.delete(held.pop(n))

        assert [entry[:3] for entry in blocks] == sorted(entry[:3] for entry in held.values())
        assert blocks.size == len(held)

    def test_splits_and_empties(self) -> None:
        candidate = make_candidate()
        entries = [(0.0, 0.0, n, candidate) for n in range(3 * BLOCK_MAX)]
        blocks = SortedBlocks()
        for entry in entries:
            blocks.insert(entry)
        assert len(blocks.blocks) > 2 and all(len(block.entries) <= BLOCK_MAX for block in blocks.blocks)

        for entry in entries:
            blocks.delete(entry)
        assert blocks.size == 0 and not list(blocks)
