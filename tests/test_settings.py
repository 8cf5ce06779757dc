"""Settings: precedence, provenance, refusals that name field, limit and source, and their documentation."""

from pathlib import Path

import pytest

from comptoir.settings import FIELDS, Settings, SettingsError, load, masked, reference

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"


def write(folder: Path, text: str, name: str = "comptoir.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


class TestPrecedence:
    def test_without_any_source_defaults_are_in_force(self) -> None:
        loaded = load({}, {}, None)

        assert loaded.settings == Settings()
        assert set(loaded.origin.values()) == {"default"}

    def test_flag_beats_environment_beats_file_beats_default(self, tmp_path: Path) -> None:
        write(tmp_path, "port = 1\nfee_bps = 1\npulse_s = 1.0")
        env = {"COMPTOIR_PORT": "2", "COMPTOIR_FEE_BPS": "2"}

        loaded = load({"port": 3, "data": str(tmp_path)}, env, None)

        assert (loaded.settings.port, loaded.settings.fee_bps, loaded.settings.pulse_s) == (3, 2, 1.0)
        assert loaded.origin["port"] == "flag"
        assert loaded.origin["fee_bps"] == "environment COMPTOIR_FEE_BPS"
        assert loaded.origin["pulse_s"] == f"file {tmp_path / 'comptoir.toml'}"
        assert loaded.origin["drain_s"] == "default"

    def test_a_flag_not_given_is_none_and_hides_nothing(self) -> None:
        assert load({"port": None}, {"COMPTOIR_PORT": "9"}, None).settings.port == 9

    def test_the_data_folder_of_the_environment_names_the_file(self, tmp_path: Path) -> None:
        write(tmp_path, "port = 7")

        assert load({}, {"COMPTOIR_DATA": str(tmp_path)}, None).settings.port == 7

    def test_a_named_file_wins_over_the_one_in_the_data_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "port = 7")
        named = write(tmp_path, "port = 8", "other.toml")

        by_flag = load({"data": str(tmp_path)}, {}, named)
        by_environment = load({"data": str(tmp_path)}, {"COMPTOIR_CONFIG": str(named)}, None)

        assert by_flag.settings.port == by_environment.settings.port == 8

    def test_environment_text_becomes_the_fields_type(self) -> None:
        env = {
            "COMPTOIR_CORS_ORIGINS": "https://a.example, https://b.example",
            "COMPTOIR_LEASE_S": "5",
            "COMPTOIR_ALLOW_QUERY_KEYS": "false",
        }

        settings = load({}, env, None).settings

        assert settings.cors_origins == ("https://a.example", "https://b.example")
        assert settings.lease_s == 5.0
        assert settings.allow_query_keys is False

    def test_names_of_the_client_and_of_tests_are_left_alone(self) -> None:
        env = {"COMPTOIR_URL": "x", "COMPTOIR_KEY": "y", "COMPTOIR_TEST_POSTGRES": "z", "PATH": "/bin"}

        assert load({}, env, None).settings == Settings()


class TestRenamed:
    @pytest.mark.parametrize(("value", "meant"), [("false", "key"), ("true", "open")])
    def test_the_old_name_still_works_and_says_what_to_write(self, tmp_path: Path, value: str, meant: str) -> None:
        write(tmp_path, f"allow_open_host_registration = {value}")
        by_file = load({"data": str(tmp_path)}, {}, None)
        by_environment = load({}, {"COMPTOIR_ALLOW_OPEN_HOST_REGISTRATION": value}, None)

        for loaded, origin in ((by_file, "comptoir.toml"), (by_environment, "environment COMPTOIR_ALLOW_OPEN")):
            assert loaded.settings.host_registration == meant
            assert origin in loaded.origin["host_registration"]
            (words,) = loaded.renamed
            assert f"write host_registration={meant}" in words and origin in words
        assert load({"host_registration": "invitation"}, {}, None).renamed == ()

    def test_a_stronger_source_wins_under_either_name(self) -> None:
        env = {"COMPTOIR_ALLOW_OPEN_HOST_REGISTRATION": "false"}
        assert load({"host_registration": "open"}, env, None).settings.host_registration == "open"


REFUSED = [
    ({"public_url": "post.example"}, {}, "", "public_url", "like https://post.example, not 'post.example' (from"),
    # flags, environment, file text, field named, words in the message
    ({"prot": 1}, {}, "", "prot", "is no setting"),
    ({}, {"COMPTOIR_PROT": "1"}, "", "prot", "environment COMPTOIR_PROT"),
    ({}, {}, "prot = 1", "prot", "comptoir.toml"),
    ({"port": 65_536}, {}, "", "port", "0 to 65,535"),
    ({"port": -1}, {}, "", "port", "0 to 65,535"),
    ({}, {"COMPTOIR_PORT": "http"}, "", "port", "whole number"),
    ({}, {}, 'port = "8080"', "port", "whole number"),
    ({}, {}, "fee_bps = 10001", "fee_bps", "10,000"),
    ({}, {"COMPTOIR_LEASE_S": "nan"}, "", "lease_s", "number"),
    ({}, {}, "lease_s = nan", "lease_s", "number"),
    ({}, {}, "lease_s = inf", "lease_s", "number"),
    ({"log_format": "xml"}, {}, "", "log_format", "text or json"),
    ({"database": "mysql://a"}, {}, "", "database", "like postgresql://USER@HOST/NAME, not"),
    ({"bus": "amqp://a"}, {}, "", "bus", "like redis://HOST:6379, not"),
    ({"bus": "redis://a"}, {}, "", "bus", "several coordinators need PostgreSQL"),
    ({"bus": "unix:///a", "database": "sqlite:a.db"}, {}, "", "bus", "several coordinators need PostgreSQL"),
    ({}, {"COMPTOIR_ALLOW_QUERY_KEYS": "perhaps"}, "", "allow_query_keys", "true or false"),
    ({"allow_open_host_registration": "x"}, {}, "", "allow_open_host_registration", "true or false"),
    (
        {"allow_open_host_registration": True, "host_registration": "key"},
        {},
        "",
        "allow_open_host_registration",
        "is now called host_registration",
    ),
    ({}, {}, "port = ", "config", "is not TOML"),
    ({}, {}, "data = 'elsewhere'", "data", "cannot be set in the file"),
    ({"prompt_bytes_max": 1 << 26}, {}, "", "prompt_bytes_max", "more than body_bytes_max"),
    ({"max_tokens_default": 200_000}, {}, "", "max_tokens_default", "more than max_tokens_max"),
    ({}, {"COMPTOIR_TRUSTED_PROXIES": "10.0.0.0/8,nonsense"}, "", "trusted_proxies", "nonsense"),
    ({"pulse_s": 100}, {}, "", "pulse_s", "more than host_silent_s"),
]


class TestRefusals:
    @pytest.mark.parametrize(("flags", "env", "text", "field", "words"), REFUSED)
    def test_says_field_limit_and_source(
        self, tmp_path: Path, flags: dict[str, object], env: dict[str, str], text: str, field: str, words: str
    ) -> None:
        write(tmp_path, text)

        with pytest.raises(SettingsError) as refused:
            load({"data": str(tmp_path), **flags}, env, None)

        assert refused.value.name == field
        assert words in str(refused.value)
        assert "(from " in str(refused.value)

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="cannot be read"):
            load({}, {}, tmp_path / "missing.toml")

    def test_a_refused_database_address_keeps_its_password_secret(self) -> None:
        with pytest.raises(SettingsError) as refused:
            load({"database": "mysql://me:hunter2@there"}, {}, None)

        assert "hunter2" not in str(refused.value)


class TestDescribe:
    def test_has_a_row_per_setting_with_origin_and_doc(self) -> None:
        rows = load({"port": 1}, {}, None).describe()

        assert [row.name for row in rows] == list(Settings.__struct_fields__)
        assert next(row for row in rows if row.name == "port").origin == "flag"
        assert all(row.doc for row in rows)

    def test_masks_the_password_of_the_database(self) -> None:
        rows = load({"database": "postgresql://me:hunter2@there/db"}, {}, None).describe()

        shown = next(row.value for row in rows if row.name == "database")
        assert shown == '"postgresql://me:***@there/db"'

    def test_masks_the_password_of_the_bus(self) -> None:
        rows = load({"database": "postgresql://there/db", "bus": "redis://:hunter2@there:6379/0"}, {}, None).describe()

        assert next(row.value for row in rows if row.name == "bus") == '"redis://:***@there:6379/0"'

    def test_masked_leaves_other_text_alone(self) -> None:
        assert masked("https://there:8080/a and b@c") == "https://there:8080/a and b@c"


class TestDatabaseAddress:
    @pytest.mark.parametrize(
        ("database", "address"),
        [
            ("", "{data}/comptoir.db"),
            ("sqlite:/srv/other.db", "/srv/other.db"),
            ("postgresql://there/db", "postgresql://there/db"),
        ],
    )
    def test_is_what_the_database_opens(self, tmp_path: Path, database: str, address: str) -> None:
        settings = Settings(data=str(tmp_path), database=database)

        assert settings.database_address() == address.format(data=tmp_path)


class TestReference:
    def test_the_page_is_what_the_module_says(self) -> None:
        assert DOCS.read_text(encoding="utf-8") == reference(), "write comptoir.settings.reference() to the page"

    def test_every_default_is_in_its_own_bounds(self) -> None:
        defaults = {name: field.default for name, field in FIELDS.items()}

        assert load(defaults, {}, None).settings == Settings()
