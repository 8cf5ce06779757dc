"""The catalog: what hosts say of their containers, counted as they come, change and go."""

from comptoir.hosts import AccessRequest, Catalog, ContainerAccess, container_access
from comptoir.kinds import Kinds
from comptoir.link import ContainerCard, ModelOffer

OPEN = ContainerAccess()
NEAR = container_access(external=True, proofs=False, networks=["10.0.0.0/8"])


def offer(name: str, price: int = 1, **card: object) -> ModelOffer:
    return ModelOffer(name, ["container"], 1, 0, price, container=ContainerCard(**card))  # type: ignore[arg-type]


class TestContainers:
    def test_what_hosts_say_is_put_together(self) -> None:
        catalog = Catalog(Kinds())
        catalog.count((offer("a", 5, description="one", external=False), ModelOffer("m", ["chat"])), 1)
        catalog.since_ms["m"] = 0
        catalog.count((offer("a", 3, description="two", image="i"),), 1)
        catalog.count((offer("a", 9, description="two", image="i", generates_proofs=True),), 1)
        catalog.count((offer("a", 9, description="two", image="i"),), 1)

        (found,) = catalog.containers()

        assert (found.name, found.available_hosts, found.min_price_uusd_per_mrun) == ("a", 4, 3)
        assert (found.description, found.image) == ("two", "i")
        assert (found.external, found.generates_proofs) == (True, True)
        assert [one.name for one in catalog.models()] == ["m"]

    def test_who_leaves_takes_his_words_along(self) -> None:
        catalog = Catalog(Kinds())
        dear, cheap = (offer("a", 5, external=False),), (offer("a", 3),)
        catalog.count(dear, 1)
        catalog.count(cheap, 1)
        catalog.count(cheap, -1)

        (found,) = catalog.containers()
        assert (found.min_price_uusd_per_mrun, found.external) == (5, False)
        catalog.count(dear, -1)
        assert catalog.containers() == []


class TestModels:
    def test_what_any_host_can_do_is_said_until_it_leaves(self) -> None:
        catalog = Catalog(Kinds())
        catalog.since_ms["m"] = 0
        silent, seen = ModelOffer("m", ["chat"]), ModelOffer("m", ["chat"], capabilities={"tools": "probed"})
        claims = ModelOffer("m", ["chat"], capabilities={"tools": "claimed", "vision": "lacking", "magic": "probed"})
        for one in (claims, seen):
            catalog.count((one,), 1)
        assert catalog.models()[0].capabilities == {"tools": "probed"}

        catalog.count((seen,), -1)
        assert catalog.models()[0].capabilities == {"tools": "claimed", "vision": "lacking"}

        catalog.count((silent,), 1)
        assert catalog.models()[0].capabilities == {"tools": "claimed"}


class TestDoors:
    def test_hosts_that_say_the_same_count_as_one(self) -> None:
        catalog = Catalog(Kinds())
        for now in (OPEN, OPEN, NEAR):
            catalog.change_access("a", None, now)
        assert catalog.access_of("a") == [OPEN, NEAR]

        catalog.change_access("a", OPEN, NEAR)
        catalog.change_access("a", OPEN, OPEN)
        assert catalog.access_of("a") == [OPEN, NEAR]
        catalog.change_access("a", OPEN, None)
        assert catalog.access_of("a") == [NEAR]
        catalog.change_access("a", NEAR, None)
        catalog.change_access("a", NEAR, None)
        assert catalog.access_of("a") == [] == catalog.access_of("never")

    def test_a_model_has_none(self) -> None:
        catalog = Catalog(Kinds())
        catalog.change_access("m", None, None)
        assert catalog.access_of("m") == []


class TestResources:
    def test_the_first_host_that_serves_it_is_quoted(self) -> None:
        catalog = Catalog(Kinds())
        catalog.count((offer("a"), offer("b")), 1)
        catalog.set_resources(b"1", {"a": b"{}", "gone": b"{}"})
        catalog.set_resources(b"2", {"a": b'{"x":1}', "b": b'{"y":1}'})

        assert catalog.resources(lambda host_id, name: True) == {"a": b"{}", "b": b'{"y":1}'}
        assert catalog.resources(lambda host_id, name: host_id == b"2") == {"a": b'{"x":1}', "b": b'{"y":1}'}
        catalog.set_resources(b"2", {"b": b"{}"})
        assert catalog.resources(lambda host_id, name: host_id == b"2") == {"b": b"{}"}


class TestToldApart:
    def test_callers_count_only_where_some_host_lets_in_only_some(self) -> None:
        catalog, near, far = (
            Catalog(Kinds()),
            AccessRequest("10.1.1.1", enters=True),
            AccessRequest("11.1.1.1", enters=True),
        )
        catalog.change_access("a", None, OPEN)
        assert catalog.relevant_part("a", near) == catalog.relevant_part("a", far) == AccessRequest(enters=True)

        catalog.change_access("a", None, NEAR)
        assert (catalog.relevant_part("a", near), catalog.relevant_part("a", far)) == (near, far)

    def test_what_is_no_entry_of_a_container_stays(self) -> None:
        assert Catalog(Kinds()).relevant_part("m", None) is None
