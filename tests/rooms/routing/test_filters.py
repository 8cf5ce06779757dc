"""Filters: each turns away exactly whom it should, and the refusal says by which figure."""

from dataclasses import replace

import pytest

from comptoir.routing import FILTERS, Spec, explain, passes, possible
from comptoir.routing.filters import EXPLAINED_MAX
from comptoir.routing.testing import make_candidate, make_free_list, make_host_id, make_spec

HERE = make_host_id(1)
CASES: list[tuple[dict[str, object], str | None]] = [
    ({}, None),
    ({"kind": "embedding"}, "kind"),
    ({"context_tokens": 8192}, None),
    ({"context_tokens": 8193}, "context length"),
    ({"tier": "secure"}, "tier"),
    ({"min_vram_mib": 24_000}, None),
    ({"min_vram_mib": 24_001}, "VRAM"),
    ({"region": "us"}, "region"),
    ({"region": "eu"}, None),
    ({"price_cap_uusd": 281}, None),
    ({"price_cap_uusd": 280}, "price cap"),
    ({"allow": frozenset([HERE])}, None),
    ({"allow": frozenset([make_host_id(2)])}, "allow list"),
    ({"allow": frozenset()}, "allow list"),
    ({"deny": frozenset([HERE])}, "deny list"),
    ({"min_reputation": 0.5}, None),
    ({"min_reputation": 0.51}, "reputation floor"),
    ({"must_continue": True}, "continuation"),
    ({"here": True}, "place"),
    ({"plain": True}, None),
    ({"plain": False}, "plain text"),
    ({"stoppable": True}, "stopping"),
    ({"entry": "somebody"}, None),
    ({"entry": "somebody else"}, "container's door"),
    ({"entry": None}, "container's door"),
]
"""Asked of a host whose offer is open to somebody."""


class OpenToSomebody:
    """Lets in one entry."""

    def refuses(self, entry: object | None) -> str | None:
        return None if entry == "somebody" else "not open to you"


def asked(changes: dict[str, object]) -> Spec:
    return replace(make_spec(), **{"entry": "somebody", **changes})  # type: ignore[arg-type]


class TestPasses:
    @pytest.mark.parametrize(("changes", "filter_name"), CASES)
    def test_each_filter_at_its_limit(self, changes: dict[str, object], filter_name: str | None) -> None:
        candidate = replace(
            make_candidate(), text_only=True, stops_at_once=False, away=True, access=OpenToSomebody()
        )  # 25 + 256 micro-dollars for the plain job
        spec = asked(changes)

        failed = [name for name, check in FILTERS if check(spec, candidate) is not None]

        assert failed == ([filter_name] if filter_name else [])
        assert passes(spec, candidate) is (filter_name is None)

    def test_every_filter_has_a_case(self) -> None:
        assert {name for name, _ in FILTERS} == {name for _, name in CASES if name}


class TestExplain:
    def test_counts_hosts_at_every_filter_they_fail_with_the_first_as_example(self) -> None:
        hosts = [make_candidate(n=n, region="us" if n < 3 else "eu", vram_mib=n * 1000) for n in (1, 2, 3)]

        refused = explain(make_spec(region="eu", min_vram_mib=9000), hosts)

        assert [(each.filter, each.count) for each in refused.filters] == [("VRAM", 3), ("region", 2)]
        assert refused.filters[1].example == f"host_{make_host_id(1).hex()}: region us"
        assert "None of 3 hosts offering m could run this: VRAM turns away 3 (for example host_" in refused.sentence()

    def test_says_when_nobody_offers_the_model(self) -> None:
        refused = explain(make_spec(model="x"), [])

        assert refused.sentence() == "No registered host offers the model x."
        assert refused.hosts == 0

    def test_its_work_is_bounded_and_it_says_how_many_it_looked_at(self) -> None:
        refused = explain(make_spec(region="us"), [make_candidate(n=n) for n in range(1, EXPLAINED_MAX + 10)])

        assert (refused.hosts, refused.looked_at) == (EXPLAINED_MAX + 9, EXPLAINED_MAX)
        assert refused.filters[0].count == EXPLAINED_MAX


class TestContext:
    def test_each_of_several_answers_has_the_context_for_itself(self) -> None:
        host = replace(make_candidate(), context_tokens=100)

        assert passes(Spec("m", input_units=40, output_units=180, context_tokens=40 + 180 // 3), host)
        assert not passes(Spec("m", input_units=40, output_units=183, context_tokens=40 + 183 // 3), host)


class TestPossible:
    def test_a_full_or_absent_host_still_makes_a_job_possible(self) -> None:
        busy = make_candidate(slots=1, running=1)
        busy.slots.open = False
        free = make_free_list([busy])

        assert possible(make_spec(), free)
        assert possible(make_spec(allow=frozenset([HERE])), free)
        assert not possible(make_spec(region="us"), free)
        assert not possible(make_spec(allow=frozenset([make_host_id(9)])), free)
