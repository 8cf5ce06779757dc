"""Every address is called once at once; after a round in vain the worker waits."""

from comptoir.worker.addresses import ADDRESSES_MAX, Addresses, split_addresses


class TestSplitAddresses:
    def test_commas_spaces_slashes_and_repeats(self) -> None:
        assert split_addresses(" http://a/, http://b:1/x/ ,,http://a") == ["http://a", "http://b:1/x"]

    def test_there_is_a_bound(self) -> None:
        assert len(split_addresses(",".join(f"http://h{number}" for number in range(1000)))) == ADDRESSES_MAX


class TestAddresses:
    def test_it_begins_where_it_is_told(self) -> None:
        assert Addresses(["a", "b", "c"], pick=lambda count: count - 1).current == "c"

    def test_many_workers_spread(self) -> None:
        assert {Addresses(["a", "b", "c"]).current for _ in range(200)} == {"a", "b", "c"}

    def test_one_waits_after_every_failure_but_not_after_a_good_connection(self) -> None:
        addresses = Addresses(["a"])

        assert [addresses.failed(lived=lived) for lived in (False, False, True, False)] == [False, False, True, False]
        assert addresses.current == "a"

    def test_a_lost_link_goes_to_all_others_before_it_waits(self) -> None:
        addresses = Addresses(["a", "b", "c"], pick=lambda count: 0)
        called = []
        for lived in (True, False, False, False, False):
            at_once = addresses.failed(lived=lived)
            called.append((addresses.current, at_once))

        # After b and c it is a's turn again, as one that may have come back: with a wait, as a whole round was in vain.
        assert called == [("b", True), ("c", True), ("a", False), ("b", True), ("c", True)]

    def test_links_that_die_at_once_are_no_new_round(self) -> None:
        """Else two coordinators that take and drop a worker would be called a hundred times a second."""
        addresses = Addresses(["a", "b"], pick=lambda count: 0)

        assert [addresses.failed() for _ in range(6)] == [True, False] * 3

    def test_the_turn_starts_with_the_current(self) -> None:
        addresses = Addresses(["a", "b", "c"], pick=lambda count: 1)

        assert addresses.in_turn() == ["b", "c", "a"]
