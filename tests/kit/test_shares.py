"""Limits over several nodes: what is told is charged elsewhere, what is held adds up, and the dead hold nothing."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from comptoir.kit.bus import MESSAGE_BYTES_MAX
from comptoir.kit.clock import FakeClock
from comptoir.kit.ratelimit import SHARED_KEYS_MAX, RateLimiter
from comptoir.kit.shares import HELD_KEYS_MAX, InFlight, NodeShare, Shares

ONE, TWO = b"1" * 16, b"2" * 16


class Node:
    """One node's limiters and counts."""

    def __init__(self, clock: FakeClock, *, per_minute: int = 10) -> None:
        self.by_key = RateLimiter(per_minute=per_minute, clock=clock)
        self.by_ip = RateLimiter(per_minute=per_minute, clock=clock)
        self.held = InFlight()
        self.shares = Shares({"key": self.by_key, "ip": self.by_ip}, self.held)

    def hear(self, node_id: bytes, share: NodeShare | None) -> None:
        """Take over what another node told, as it comes over the wire."""
        assert share is not None
        self.shares.apply(node_id, msgspec.msgpack.decode(msgspec.msgpack.encode(share), type=NodeShare))


class TestCollect:
    def test_what_one_node_allowed_is_gone_at_the_other(self, clock: FakeClock) -> None:
        one, two = Node(clock), Node(clock)
        for _ in range(4):
            one.by_key.take(b"ada")
        one.by_ip.take("192.0.2.1")

        two.hear(ONE, one.shares.collect())

        assert two.by_key.take(b"ada").remaining == 5
        assert two.by_ip.take("192.0.2.1").remaining == 8

    def test_what_was_charged_is_not_told_back(self, clock: FakeClock) -> None:
        one, two = Node(clock), Node(clock)
        one.by_key.take(b"ada")
        two.hear(ONE, one.shares.collect())

        assert two.shares.collect() is None

    def test_nothing_new_is_nothing_to_tell(self, clock: FakeClock) -> None:
        one = Node(clock)
        one.by_key.take(b"ada")
        one.held.enter(b"ada")

        assert one.shares.collect() is not None
        assert one.shares.collect() is None

    def test_a_message_fits_the_bus(self, clock: FakeClock) -> None:
        one = Node(clock)
        for number in range(max(SHARED_KEYS_MAX, HELD_KEYS_MAX) + 5):
            one.by_key.take(number.to_bytes(16, "big"))
            one.by_ip.take(f"{number:x}:2001:db8::/64")
            one.held.enter(number.to_bytes(16, "big"))

        share = one.shares.collect()
        assert share is not None
        assert len(msgspec.msgpack.encode(share)) < MESSAGE_BYTES_MAX
        rest = one.shares.collect()
        assert rest is not None
        assert len(rest.held) == 5

    def test_a_limiter_of_another_version_is_passed_over(self, clock: FakeClock) -> None:
        one = Node(clock)

        one.hear(TWO, NodeShare({"moon": {"a": 1}, "key": {b"ada": 1}}, {}))

        assert one.by_key.take(b"ada").remaining == 8


class TestHeld:
    def test_counts_add_up_over_nodes(self, clock: FakeClock) -> None:
        one, two = Node(clock), Node(clock)
        one.held.enter(b"ada")
        one.held.enter(b"ada")
        two.held.enter(b"ada")
        two.hear(ONE, one.shares.collect())
        assert (two.held.total(b"ada"), two.held.here(b"ada")) == (3, 1)

        one.held.leave(b"ada")
        two.hear(ONE, one.shares.collect())
        assert two.held.total(b"ada") == 2
        one.held.leave(b"ada")
        two.hear(ONE, one.shares.collect())
        assert two.held.total(b"ada") == 1

    def test_the_dead_hold_nothing(self, clock: FakeClock) -> None:
        one, two = Node(clock), Node(clock)
        one.held.enter(b"ada")
        two.hear(ONE, one.shares.collect())

        two.shares.forget(ONE)
        two.shares.forget(ONE)

        assert two.held.total(b"ada") == 0

    def test_the_whole_mends_what_was_lost(self, clock: FakeClock) -> None:
        one, two = Node(clock), Node(clock)
        one.held.enter(b"ada")
        two.hear(ONE, one.shares.collect())
        one.held.leave(b"ada")
        one.held.enter(b"bob")
        one.shares.collect()

        for share in one.shares.whole():
            two.hear(ONE, share)

        assert (two.held.total(b"ada"), two.held.total(b"bob")) == (0, 1)

    def test_a_large_whole_comes_in_pieces(self, clock: FakeClock) -> None:
        one, two = Node(clock), Node(clock)
        keys = [number.to_bytes(16, "big") for number in range(HELD_KEYS_MAX + 1)]
        for key in keys:
            one.held.enter(key)

        shares = one.shares.whole()
        for share in shares:
            two.hear(ONE, share)

        assert [len(share.held) for share in shares] == [HELD_KEYS_MAX, 1]
        assert all(two.held.total(key) == 1 for key in keys)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2), st.integers(0, 3), st.sampled_from(["enter", "leave", "tell", "whole", "lose"])
            )
        )
    )
    def test_what_is_told_in_the_end_is_right(self, moves: list[tuple[int, int, str]]) -> None:
        """Whatever changes, and whatever is lost on the way: after a whole from everybody every node knows the sums."""
        clock = FakeClock()
        nodes = [Node(clock) for _ in range(3)]
        ids = [bytes([number]) * 16 for number in range(3)]
        here = [dict.fromkeys(range(4), 0) for _ in nodes]
        for node, key, move in moves:
            held, shares = nodes[node].held, nodes[node].shares
            if move == "enter":
                held.enter(bytes([key]))
                here[node][key] += 1
            elif move == "leave" and here[node][key]:
                held.leave(bytes([key]))
                here[node][key] -= 1
            elif move in ("tell", "lose"):
                share = shares.collect()
                if share is not None and move == "tell":
                    for other in range(3):
                        if other != node:
                            nodes[other].hear(ids[node], share)
            elif move == "whole":
                for share in shares.whole():
                    nodes[(node + 1) % 3].hear(ids[node], share)
        for node, shares in enumerate(one.shares for one in nodes):
            for share in shares.whole():
                for other in range(3):
                    if other != node:
                        nodes[other].hear(ids[node], share)

        for one in nodes:
            assert [one.held.total(bytes([key])) for key in range(4)] == [sum(h[key] for h in here) for key in range(4)]
