"""Filters: each turns away exactly whom it should, and the refusal says by which figure."""

from dataclasses import replace

import msgspec
import pytest

from comptoir.routing import (
    FILTERS,
    Candidate,
    Capacity,
    Needs,
    Spec,
    decode_needs,
    encode_needs,
    explain,
    passes,
    possible,
)
from comptoir.routing.filters import EXPLAINED_MAX
from comptoir.routing.testing import make_candidate, make_free_list, make_host_id, make_spec

HERE = make_host_id(1)
CASES: list[tuple[dict[str, object], str | None]] = [
    ({}, None),
    ({"kind": "embedding"}, "kind"),
    ({"context_tokens": 8192}, None),
    ({"context_tokens": 8193}, "context length"),
    ({"price_cap_uusd": 281}, None),
    ({"price_cap_uusd": 280}, "price cap"),
    ({"deny": frozenset([HERE])}, "deny list"),
    ({"must_continue": True}, "continuation"),
    ({"here": True}, "place"),
    ({"text_only": True}, None),
    ({"text_only": False}, "plain text"),
    ({"promotional": True}, "promotions"),
    ({"capabilities": frozenset(["tools"])}, None),
    ({"capabilities": frozenset(["schema"])}, None),
    ({"capabilities": frozenset(["vision"])}, "capabilities"),
    ({"capabilities": frozenset(["tools", "vision"])}, "capabilities"),
    ({"stoppable": True}, "stopping"),
    ({"entry": "somebody"}, None),
    ({"entry": "somebody else"}, "container's door"),
    ({"entry": None}, "container's door"),
    ({"proven": True}, "newcomers' share"),
    ({"tried_groups": frozenset([b"its owner"])}, "newcomers' share"),
    ({"tried_groups": frozenset([b"another"])}, None),
]
"""Asked of a newcomer whose offer is open to somebody."""

NEEDS: list[tuple[Needs, str, str]] = [
    (Needs(), "", ""),
    (Needs(tier="secure"), "tier", "tier unknown"),
    (Needs(vram_mib=24_000), "", ""),
    (Needs(vram_mib=24_001), "VRAM", "24000 MiB of 24001"),
    (Needs(gpu="a100"), "", ""),
    (Needs(gpu="NVIDIA A100 80GB"), "", ""),
    (Needs(gpu="H100"), "GPU", "NVIDIA A100 80GB is no H100"),
    (Needs(gpus=2), "", ""),
    (Needs(gpus=3), "GPU count", "2 of 3"),
    (Needs(cpu_millis=16_000), "", ""),
    (Needs(cpu_millis=16_001), "CPU", "16000 of 16001 thousandths of a core"),
    (Needs(memory_mib=65_536), "", ""),
    (Needs(memory_mib=65_537), "memory", "65536 of 65537 MiB"),
    (Needs(disk_mib=1), "disk", "unknown, 1 MiB needed"),
    (Needs(region="us"), "region", "region eu"),
    (Needs(region="eu"), "", ""),
    (Needs(rate_caps=(("token_in", 250_000), ("token_out", 1_000_000))), "", ""),
    (
        Needs(rate_caps=(("token_in", 250_000), ("token_out", 999_999))),
        "rate cap",
        "1000000 micro-dollars per million token_out against a cap of 999999",
    ),
    (Needs(rate_caps=(("second", 10**12),)), "rate cap", "not sold by the second"),
    (Needs(allow=frozenset([HERE])), "", ""),
    (Needs(allow=frozenset([make_host_id(2)])), "allow list", "not on it"),
    (Needs(allow=frozenset()), "allow list", "not on it"),
    (Needs(deny=frozenset([HERE])), "deny list", "on it"),
    (Needs(deny=frozenset([make_host_id(2)])), "", ""),
    (Needs(min_reputation=0.5), "", ""),
    (Needs(min_reputation=0.51), "reputation floor", "0.50 of 0.51"),
]
"""What an order needs, the filter that turns the same host away, and its words."""


def candidate() -> Candidate:
    """Return a host that lacks something of everything; a plain job costs 25 + 256 micro-dollars there."""
    return replace(
        make_candidate(),
        text_only=True,
        no_promotions=True,
        able=frozenset(["tools"]),
        lacking=frozenset(["vision"]),
        stops_at_once=False,
        remote=True,
        access=OpenToSomebody(),
        group=b"its owner",
        gpu="NVIDIA A100 80GB",
        capacity=Capacity(gpus=2, cpu_millis=16_000, memory_mib=65_536),
        rates={"token_in": 250_000, "token_out": 1_000_000},
    )


class OpenToSomebody:
    """Lets in one entry."""

    def refuses(self, entry: object | None) -> str | None:
        return None if entry == "somebody" else "not open to you"


def asked(changes: dict[str, object]) -> Spec:
    return msgspec.structs.replace(make_spec(), **{"entry": "somebody", **changes})  # type: ignore[arg-type]


class TestPasses:
    @pytest.mark.parametrize(("changes", "filter_name"), CASES)
    def test_each_filter_at_its_limit(self, changes: dict[str, object], filter_name: str | None) -> None:
        spec, host = asked(changes), candidate()

        failed = [name for name, check in FILTERS if check(spec, host) is not None]

        assert failed == ([filter_name] if filter_name else [])
        assert passes(spec, host) is (filter_name is None)

    @pytest.mark.parametrize(("needs", "filter_name", "words"), NEEDS)
    def test_each_need_at_its_limit_with_the_figure_that_failed(
        self, needs: Needs, filter_name: str, words: str
    ) -> None:
        spec, host = asked({"needs": needs}), candidate()

        failed = {name: why for name, check in FILTERS if (why := check(spec, host)) is not None}

        assert failed == ({filter_name: words} if filter_name else {})
        assert passes(spec, host) is (not filter_name)
        assert possible(spec, make_free_list([host])) is (not filter_name)

    def test_every_filter_has_a_case(self) -> None:
        proved = {name for _, name in CASES} | {name for _, name, _ in NEEDS}

        assert {name for name, _ in FILTERS} == proved - {None, ""}


class TestExplain:
    def test_counts_hosts_at_every_filter_they_fail_with_the_first_as_example(self) -> None:
        hosts = [make_candidate(n=n, region="us" if n < 3 else "eu", vram_mib=n * 1000) for n in (1, 2, 3)]

        refused = explain(make_spec(region="eu", vram_mib=9000), hosts)

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


class TestStored:
    @pytest.mark.parametrize("needs", [needs for needs, _, _ in NEEDS if needs != Needs()])
    def test_needs_are_read_back_as_they_were(self, needs: Needs) -> None:
        stored = encode_needs(needs)

        assert decode_needs(stored) == needs
        assert decode_needs(stored) is decode_needs(stored)

    def test_an_order_without_needs_keeps_none(self) -> None:
        assert encode_needs(None) is encode_needs(Needs()) is decode_needs(None) is None
