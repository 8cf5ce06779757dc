"""Doors: a container lets in whom its host let in, and says why not."""

import pytest

from comptoir.hosts import AccessRequest, container_access

DOOR = container_access(external=False, proofs=False, networks=("10.1.2.3",))


class TestRefuses:
    @pytest.mark.parametrize(
        ("entry", "why"),
        [
            (AccessRequest("10.1.2.3"), None),
            (AccessRequest("::ffff:10.1.2.3"), None),
            (AccessRequest("10.1.2.4"), "not open to this address"),
            (AccessRequest("no address"), "not open to this address"),
            (AccessRequest("10.1.2.3", enters=True), "no job may begin with it"),
            (AccessRequest("10.1.2.3", proof=True), "proves nothing"),
            (AccessRequest("10.1.2.4", enters=True, proof=True), "no job may begin with it"),
            (None, "not open to this address"),
        ],
    )
    def test_it_says_what_it_looks_at_in_one_order(self, entry: AccessRequest | None, why: str | None) -> None:
        assert DOOR.refuses(entry) == why

    def test_one_without_conditions_lets_in_everybody(self) -> None:
        assert container_access(external=True, proofs=True, networks=()).refuses(None) is None
