"""A Ritual node's configuration: what is used, what is not needed, what is refused and why; and that no secret gets
out."""

import json
from pathlib import Path
from typing import Any

import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.container_spec import ContainerSpec, Managed
from comptoir.worker.engines.infernet_config import CONFIG_BYTES_MAX, NOT_NEEDED, parse, read_config, translate
from comptoir.worker.engines.infernet_container import _READERS, KeyVerdict
from comptoir.worker.engines.infernet_values import BadValue

ASSET = "0x" + "aB" * 20
OWNER = "0x" + "Cd" * 20
WEI = 2**70 + 1
"""More than 64 bits hold, and than a double holds exactly."""

SECRETS = ("registry-passw0rd", "bearer-of-one", "env-of-one", "0x" + "5e" * 32)

SAMPLE: dict[str, Any] = {
    "log_path": "infernet_node.log",
    "manage_containers": True,
    "server": {"port": 4000, "rate_limit": {"num_requests": 100, "period": 100}},
    "chain": {
        "enabled": False,
        "trail_head_blocks": 3,
        "rpc_url": "http://127.0.0.1:8545",
        "registry_address": "0x" + "00" * 20,
        "wallet": {"max_gas_limit": 4000000, "private_key": SECRETS[3], "allowed_sim_errors": []},
        "snapshot_sync": {"sleep": 3, "batch_size": 500, "starting_sub_id": 160000, "sync_period": 30},
    },
    "startup_wait": 1.0,
    "docker": {"username": "ada", "password": SECRETS[0]},
    "redis": {"host": "redis", "port": 6379},
    "forward_stats": True,
    "containers": [
        {
            "id": "hello-world",
            "image": "example/hello-world:latest",
            "external": True,
            "port": "3000",
            "bearer": SECRETS[1],
            "allowed_delegate_addresses": [],
            "allowed_addresses": [OWNER],
            "allowed_ips": ["10.0.0.0/8", "::1"],
            "command": "--bind=0.0.0.0:3000 --workers=2",
            "env": {"KEY": SECRETS[2], "DEBUG": True, "N": 3},
            "volumes": ["/models:/models:ro"],
            "accepted_payments": {ASSET: WEI},
            "generates_proofs": False,
            "description": "Says hello",
        },
        {"id": "private", "image": "example/llama:2", "external": False, "gpu": True, "port": 3001},
    ],
}
"""What an operator has; the port in quotes is in the node's own sample."""


def one(managed: bool = False, **fields: Any) -> dict[str, Any]:
    """Return a document of one container."""
    return {"manage_containers": managed, "containers": [{"id": "a", "image": "example/image:1", **fields}]}


def refusals(document: dict[str, Any]) -> dict[str, str]:
    """Return what is refused, and why."""
    return {found.path: found.why for found in translate(document).findings if found.verdict is KeyVerdict.REFUSED}


class TestWholeFile:
    def test_an_operators_file_comes_to_these_containers(self) -> None:
        translation = translate(parse(json.dumps(SAMPLE).encode()))

        shared = {"rate_requests": 100, "rate_period_s": 100.0}
        login = {"registry_user": "ada", "registry_password": SECRETS[0]}
        assert translation.specs == (
            ContainerSpec(
                id="hello-world", url="http://127.0.0.1:3000", bearer=SECRETS[1], description="Says hello",
                image="example/hello-world:latest", allowed_ips=("10.0.0.0/8", "::1/128"), allowed_addresses=(OWNER.lower(),),
                accepted_payments={ASSET.lower(): WEI}, **shared,
                managed=Managed(
                    image="example/hello-world:latest", command="--bind=0.0.0.0:3000 --workers=2", port=3000,
                    env={"KEY": SECRETS[2], "DEBUG": "True", "N": "3"}, volumes=("/models:/models:ro",), **login,
                ),
            ),
            ContainerSpec(
                id="private", url="http://127.0.0.1:3001", image="example/llama:2", external=False, **shared,
                managed=Managed(image="example/llama:2", port=3001, gpu=True, **login),
            ),
        )  # fmt: skip
        assert [found for found in translation.findings if found.verdict is KeyVerdict.REFUSED] == []

    def test_no_secret_is_in_what_is_said_of_it(self) -> None:
        translation = translate(parse(json.dumps(SAMPLE).encode()))

        said = repr(translation) + "\n".join(translation.lines())
        assert [secret for secret in SECRETS if secret in said] == []

    def test_every_key_has_a_finding(self) -> None:
        """Of a section that is not needed as a whole, one."""
        document = parse(json.dumps(SAMPLE).encode())
        paths = [found.path for found in translate(document).findings]

        assert len(paths) == len(set(paths))
        for key in document:
            assert any(path == key or path.startswith((f"{key}.", f"{key}[")) for path in paths), key
        for place, container in enumerate(document["containers"]):
            assert {f"containers[{place}].{key}" for key in container} <= set(paths)

    def test_it_is_said_in_three_parts(self) -> None:
        document = parse(json.dumps(SAMPLE).encode()) | {"extra": 1}

        lines = translate(document).lines()

        assert [line.partition(":")[0] for line in lines] == sorted(
            (line.partition(":")[0] for line in lines), key=[str(verdict) for verdict in KeyVerdict].index
        )
        assert "used: containers[1]: id, image, port, external, gpu" in lines
        assert f"not needed: redis: {NOT_NEEDED['redis']}" in lines
        assert lines[-1] == "refused: extra: unknown here"

    def test_a_container_that_is_refused_is_said_to_be_so(self) -> None:
        """What of it was taken is said, too, and would look as if it were served."""
        containers = [{"id": "good", "image": "i"}, {"id": "bad", "image": "i", "odd": 1, "even": 2}]

        lines = translate({"manage_containers": True, "containers": containers}).lines()

        assert lines[-1] == "refused: containers[1]: so this container is not offered"
        assert sum(line.endswith("not offered") for line in lines) == 1


DEFAULTS = [
    # field of the specification, what it is where the file says nothing
    ("url", "http://127.0.0.1:3000"),
    ("external", True),
    ("rate_requests", 60),
    ("rate_period_s", 60.0),
    ("allowed_ips", ()),
    ("accepted_payments", {}),
    ("generates_proofs", False),
    ("bearer", ""),
]


class TestDefaults:
    @pytest.mark.parametrize(("name", "value"), DEFAULTS)
    def test_they_are_the_nodes(self, name: str, value: Any) -> None:
        assert getattr(translate({"containers": [{"id": "a", "image": "example/i"}]}).specs[0], name) == value

    def test_containers_are_managed_unless_said_otherwise(self) -> None:
        assert translate({"containers": [{"id": "a", "image": "example/i"}]}).specs[0].managed is not None
        assert translate(one(managed=False)).specs[0].managed is None

    def test_an_empty_file_describes_nothing(self) -> None:
        assert translate({}).specs == ()


PORTS = [
    # ports as they are written (None: not at all), ports as they are given
    ([3000, 3001], [3000, 3001]),
    ([None, None, None], [3000, 3999, 3998]),
    ([3999, 3999], [3999, 3998]),
    ([3001, 3001, 3999], [3001, 3999, 3998]),
]


class TestPorts:
    @pytest.mark.parametrize(("asked", "given"), PORTS)
    def test_one_asked_for_twice_is_moved_as_the_node_does(self, asked: list[int | None], given: list[int]) -> None:
        entries = [
            {"id": f"c{n}", "image": "example/i"} | ({"port": port} if port else {}) for n, port in enumerate(asked)
        ]

        translation = translate({"containers": entries})

        assert [spec.managed and spec.managed.port for spec in translation.specs] == given
        assert [spec.url for spec in translation.specs] == [f"http://127.0.0.1:{port}" for port in given]
        moved = [found.why for found in translation.findings if "moves it" in found.why]
        assert len(moved) == sum((port or 3000) != new for port, new in zip(asked, given, strict=True))


REFUSED = [
    # what is refused, the document, where, a part of the reason
    ("a chain", {"chain": {"enabled": True}}, "chain", "delivers nothing on a chain yet"),
    ("an unknown key", {"speed": 1}, "speed", "unknown here"),
    ("an unknown key of a section", {"server": {"tls": True}}, "server.tls", "unknown here"),
    ("an unknown key of the chain", {"chain": {"bridge": 1}}, "chain.bridge", "unknown here"),
    ("an unknown key of docker", {"docker": {"username": "a", "password": "b", "x": 1}}, "docker.x", "unknown here"),
    ("half of a login", {"docker": {"username": "a"}}, "docker", "belong together"),
    ("a name that is missing", {"containers": [{"image": "example/i"}]}, "containers[0].id", "needs a name"),
    ("no image to start", {"containers": [{"id": "a"}]}, "containers[0].image", "nothing to start"),
]

REFUSES_THE_CONTAINER = [
    # key, its value, whether we manage it, a part of the reason
    ("id", "a,b", False, "no commas"),
    ("id", "a b", False, "no spaces"),
    ("id", "a/b", True, "begins with a letter or digit"),
    ("url", "http://h:1", True, "either started here or reached at its url"),
    ("url", "ftp://h:1", False, "must look like http://host:port"),
    ("url", "http://h:99999", False, "must look like http://host:port"),
    ("url", "http://u:p@h:1", False, "a secret belongs into bearer"),
    ("url", "http://h:1/service_output", False, "without /service_output"),
    ("bearer", "a\nb", False, "no header can carry"),
    ("port", 0, False, "1 to 65535"),
    ("port", 70000, True, "1 to 65535"),
    ("image", "a b", True, "spaces"),
    ("command", "--x 'y", True, "quotation mark"),
    ("env", {"A": None}, True, "A must be a text or a number, is null"),
    ("env", {"A": ["env-of-one"]}, True, "A must be a text or a number, is a list"),
    ("env", {"A=B": "1"}, True, "'=' in it"),
    ("volumes", ["./models:/models"], True, "Docker takes no relative one"),
    ("volumes", ["/models:models"], True, "inside the container must begin with /"),
    ("volumes", ["/a:/b", "/a:/b:fast"], True, "number 2: 'fast' is no way to mount"),
    ("volumes", ["a b:/b"], True, "nor the name of a volume"),
    ("volumes", ["/a:/b:ro:x"], True, "must look like /here:/there"),
    ("allowed_ips", ["10.0.0.0/33"], False, "written like 10.0.0.0/8"),
    ("allowed_ips", ["10.0.0.1/8"], False, "has host bits set"),
    ("allowed_ips", ["my-office"], False, "does not appear to be"),
    ("allowed_addresses", ["ada.eth"], False, "is no address"),
    ("allowed_delegate_addresses", ["0x12"], False, "is no address"),
    ("accepted_payments", {"ETH": 1}, False, "is no address"),
    ("accepted_payments", {ASSET: -1}, False, "below zero"),
    ("rate_limit", {"num_requests": 0}, False, "at least 1"),
    ("rate_limit", {"num_requests": 5, "burst": 2}, False, "unknown here"),
    ("allowed_countries", ["FR"], False, "what it would protect is not known"),
    ("description", "x" * 3000, False, "at most 2000 characters"),
]


class TestRefusals:
    @pytest.mark.parametrize(("what", "document", "path", "why"), REFUSED)
    def test_it_is_refused_with_its_reason(self, what: str, document: dict[str, Any], path: str, why: str) -> None:
        assert why in refusals(document)[path], what

    @pytest.mark.parametrize(("key", "value", "managed", "why"), REFUSES_THE_CONTAINER)
    def test_what_can_not_be_honoured_refuses_the_container(
        self, key: str, value: Any, managed: bool, why: str
    ) -> None:
        """It would else be offered with less protection than its owner wrote."""
        document = one(managed, **{key: value})
        document["containers"].append({"id": "fine", "image": "example/image:1", "port": 4444})

        translation = translate(document)

        assert [spec.id for spec in translation.specs] == ["fine"]
        assert any(why in reason for path, reason in refusals(document).items() if path.startswith("containers[0]"))
        assert not any(secret in line for secret in SECRETS for line in translation.lines())

    def test_of_two_with_one_name_both_are_refused(self) -> None:
        """Which of them has the owner's protection is not known."""
        document = {"containers": [{"id": "a", "image": "example/1"}, {"id": "a", "image": "example/2"}]}

        assert translate(document).specs == ()
        assert set(refusals(document)) == {"containers[0].id", "containers[1].id"}

    def test_a_limit_for_all_that_can_not_be_honoured_refuses_those_without_their_own(self) -> None:
        entries = [
            {"id": "a", "image": "example/1"},
            {"id": "b", "image": "example/1", "rate_limit": {"num_requests": 3}},
        ]
        document = {"server": {"rate_limit": {"num_requests": 0}}, "containers": entries}

        specs = translate(document).specs

        assert [(spec.id, spec.rate_requests, spec.rate_period_s) for spec in specs] == [("b", 3, 60.0)]

    def test_a_chain_leaves_its_containers_for_jobs_without_one(self) -> None:
        assert len(translate(one() | {"chain": {"enabled": True}}).specs) == 1


class TestNotManaged:
    def test_a_url_is_where_it_is(self) -> None:
        spec = translate(one(url="https://far.example/c/", bearer="x", port=3000)).specs[0]

        assert (spec.url, spec.bearer, spec.managed) == ("https://far.example/c", "x", None)

    @pytest.mark.parametrize("key", ["command", "env", "volumes", "gpu"])
    def test_how_to_start_it_is_not_needed(self, key: str) -> None:
        value: dict[str, Any] = {"command": "x", "env": {"A": "1"}, "volumes": ["/a:/b"], "gpu": True}

        found = {found.path: found for found in translate(one(**{key: value[key]})).findings}

        assert found[f"containers[0].{key}"].verdict is KeyVerdict.NOT_NEEDED

    def test_an_image_need_not_be_known(self) -> None:
        assert len(translate({"manage_containers": False, "containers": [{"id": "a", "url": "http://h:1"}]}).specs) == 1


WRONG = [
    # the document, what is said
    ([], "must be an object, is a list"),
    ({"containers": {}}, "containers: must be a list, is an object"),
    ({"containers": ["x"]}, "containers[0]: must be an object, is a text"),
    ({"containers": [{"id": 1}]}, "containers[0].id: must be a text, is a number"),
    (one(port=True), "containers[0].port: must be a whole number, is true or false"),
    (one(port=3000.5), "containers[0].port: must be a whole number, is a fraction"),
    (one(external="yes"), "containers[0].external: must be true or false, is a text"),
    (one(allowed_ips="10.0.0.0/8"), "containers[0].allowed_ips: must be a list, is a text"),
    (one(allowed_ips=[1]), "containers[0].allowed_ips[0]: must be a text, is a number"),
    (one(allowed_ips=None), "containers[0].allowed_ips: must be a list, is null"),
    (one(accepted_payments={ASSET: 1e18}), f"containers[0].accepted_payments.{ASSET}: must be a whole number"),
    (one(env=[]), "containers[0].env: must be an object, is a list"),
    ({"manage_containers": "maybe"}, "manage_containers: must be true or false, is a text"),
    ({"server": {"rate_limit": {"period": "long"}}}, "server.rate_limit.period: must be a whole number, is a text"),
    ({"docker": {"username": 1}}, "docker.username: must be a text, is a number"),
    ({"chain": {"enabled": 2}}, "chain.enabled: must be true or false, is a number"),
]

BROKEN = [
    # the file, what is said
    (b"{", "no JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
    (b"\xff", "not UTF-8"),
    (b'{"a": NaN}', "NaN is no number"),
    (b'{"containers": [{"allowed_ips": ["10.0.0.0/8"], "allowed_ips": []}]}', "allowed_ips: given twice in one object"),
    (b"[" * 200_000, "nested too deep"),
    (b"1" * 5000, "too many digits"),
    (b" " * (CONFIG_BYTES_MAX + 1), "longer than"),
]


class TestReadConfig:
    @pytest.mark.parametrize(("document", "words"), WRONG)
    def test_a_wrong_type_is_named_with_its_place(self, document: Any, words: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(document))

        with pytest.raises(EngineError) as caught:
            read_config(tmp_path / "config.json")

        assert caught.value.message.startswith(f"{tmp_path / 'config.json'}: ") and words in caught.value.message

    @pytest.mark.parametrize(("data", "words"), BROKEN)
    def test_what_is_no_json_is_one_error(self, data: bytes, words: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes(data)

        with pytest.raises(EngineError, match=words):
            read_config(tmp_path / "config.json")

    def test_a_missing_file_is_one_error(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"config\.json: No such file"):
            read_config(tmp_path / "config.json")

    def test_numbers_of_any_size_are_exact(self) -> None:
        document = parse(json.dumps(one(accepted_payments={ASSET: 2**255 + 1})).encode())

        assert translate(document).specs[0].accepted_payments == {ASSET.lower(): 2**255 + 1}

    def test_a_wrong_type_never_repeats_the_value(self) -> None:
        with pytest.raises(BadValue) as caught:
            translate(one(bearer=["bearer-of-one"]))

        assert "bearer-of-one" not in str(caught.value)


class TestDocument:
    def test_every_key_of_a_container_is_in_the_document(self) -> None:
        """`docs/containers.md` has a row for each."""
        text = (Path(__file__).parents[3] / "docs" / "containers.md").read_text()

        assert [
            key for key in (*_READERS, *NOT_NEEDED, "manage_containers", "chain", "docker") if f"`{key}`" not in text
        ] == []
