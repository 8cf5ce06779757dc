"""Coordinators of a local cluster listen on loopback behind a balancer, and answer to the names that it is reached
by."""

import pytest

from comptoir.cli.config import settings_from
from comptoir.cli.up import _at_home_too


@pytest.mark.parametrize(
    ("flags", "pairs", "any_name"),
    [
        ({"host": "127.0.0.1"}, (), False),
        ({"host": "localhost"}, (), False),
        ({"host": "0.0.0.0"}, (), True),
        ({"host": "192.168.1.2"}, (), True),
        # Said by the operator, who says it to the members in the same words.
        ({"host": "0.0.0.0"}, ("server_names=post.example",), False),
    ],
)
def test_members_take_any_name_where_the_balancer_listens_on_a_network(
    flags: dict[str, object], pairs: tuple[str, ...], any_name: bool
) -> None:
    """They can't know what the balancer listens on; on loopback it has no names but loopback's, which they know."""
    told = _at_home_too(settings_from(dict(flags), pairs, None))
    assert ("server_names=*" in told) is any_name
    # Whose hosts need an owner, too, who can't be told by where the members listen.
    assert ("host_registration=key" in told) is (flags["host"] not in ("127.0.0.1", "localhost"))
