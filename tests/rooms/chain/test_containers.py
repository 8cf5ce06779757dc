"""Ids of container sets, and the memory of those that were asked for."""

import string

import pytest
from eth_abi import encode
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from comptoir.chain import SET_BYTES_MAX, BadContainerSet, KnownSets, containers_id

ids = st.lists(st.text(min_size=1).filter(lambda one: "," not in one), min_size=1, max_size=20).filter(
    lambda them: not any("\ud800" <= c <= "\udfff" for one in them for c in one)
)


class TestContainersId:
    @pytest.mark.parametrize(
        ("one", "start", "end"),
        [
            ("echo", "e6bc11afcedb3f26d7fb181f4c6dd2e98781d79f965a4777058412b58f788ec8", ""),
            ("hello-world", "57686615", "547e22"),
        ],
    )
    def test_the_published_ones(self, one: str, start: str, end: str) -> None:
        found = containers_id([one]).hex()

        assert found.startswith(start) and found.endswith(end)

    @given(ids)
    def test_it_is_the_hash_of_the_encoded_string(self, them: list[str]) -> None:
        assert containers_id(them) == keccak(encode(["string"], [",".join(them)]))

    def test_the_order_counts(self) -> None:
        assert containers_id(["a", "b"]) != containers_id(["b", "a"])

    @pytest.mark.parametrize(
        ("them", "reason"),
        [
            ([], "at least one"),
            ([""], "empty"),
            (["a", ""], "empty"),
            (["a,b"], "comma"),
            (["\ud800"], "UTF-8"),
            (["x" * SET_BYTES_MAX, "y"], f"at most {SET_BYTES_MAX} bytes together, not {SET_BYTES_MAX + 2}"),
        ],
    )
    def test_a_set_without_a_hash_of_its_own_is_refused(self, them: list[str], reason: str) -> None:
        with pytest.raises(BadContainerSet) as caught:
            containers_id(them)

        assert reason in caught.value.reason and caught.value.ids == tuple(them)

    def test_one_text_is_no_list(self) -> None:
        with pytest.raises(AssertionError):
            containers_id(string.ascii_letters)


class TestKnownSets:
    def test_a_set_is_found_once_it_was_asked_for(self) -> None:
        known = KnownSets()

        assert known.find(containers_id(["a", "b"])) is None
        found = known.id_of(["a", "b"])

        assert found == containers_id(["a", "b"])
        assert known.find(found) == ("a", "b")
        assert known.find(containers_id(["b", "a"])) is None

    def test_the_one_that_was_not_used_for_longest_goes(self) -> None:
        known = KnownSets(sets_max=2)
        a, b = known.id_of(["a"]), known.id_of(["b"])
        known.find(a)

        c = known.id_of(["c"])

        assert (known.find(a), known.find(b), known.find(c)) == (("a",), None, ("c",))

    def test_asking_again_keeps_it(self) -> None:
        known = KnownSets(sets_max=2)
        a = known.id_of(["a"])
        known.id_of(["b"])
        known.id_of(["a"])

        known.id_of(["c"])

        assert known.find(a) == ("a",) and len(known) == 2

    def test_a_refused_one_is_not_remembered(self) -> None:
        known = KnownSets()

        with pytest.raises(BadContainerSet):
            known.id_of(["a,b"])

        assert len(known) == 0
