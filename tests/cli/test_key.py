"""How a command gets its key: nothing that others on the machine can read, without saying so."""

import json
import subprocess
from io import StringIO
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from comptoir.cli.greeting import Greeting, OnOffer, snippets
from comptoir.cli.main import program
from comptoir.cli.target import SEEN_BY_ALL, key_options
from comptoir.cli.up import _warn_of_passwords

KEY = "ck_" + "A" * 43


@click.command()
@key_options("Your key")
def shows(key: str | None) -> None:
    """Print the key that was given."""
    click.echo(f"key: {key}")


def given(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(shows, arguments, input=typed)


class TestKeyOptions:
    def test_a_key_on_the_command_line_is_taken_and_warned_of(self) -> None:
        result = given("--key", KEY)
        assert (result.stdout, result.stderr) == (f"key: {KEY}\n", SEEN_BY_ALL + "\n")

    def test_one_from_a_file_is_taken_in_silence(self, tmp_path: Path) -> None:
        file = tmp_path / "key.txt"
        file.write_text(f"{KEY}\n")
        for result in (given("--key-file", str(file)), given("--key-file", "-", typed=KEY)):
            assert (result.stdout, result.stderr, result.exit_code) == (f"key: {KEY}\n", "", 0)

    def test_none_is_none(self) -> None:
        assert given().output == "key: None\n"

    @pytest.mark.parametrize("text", ["", "  \n", "two words"])
    def test_a_file_without_a_key_is_said(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "key.txt").write_text(text)
        result = given("--key-file", str(tmp_path / "key.txt"))
        assert result.exit_code == 2 and "holds no key" in result.output and "key: " not in result.stdout

    @pytest.mark.parametrize(
        "command", ["run", "jobs", "balance", "statement", "deposit", "host", "hosts", "models", "audit"]
    )
    def test_every_command_that_takes_a_key_takes_it_from_a_file(self, command: str) -> None:
        assert "--key-file FILE" in CliRunner().invoke(program, [command, "--help"]).output


class TestPasswords:
    @pytest.mark.parametrize(
        ("flags", "pairs", "names"),
        [
            (
                {"database": "postgresql://ada:secret@db/comptoir", "bus": "redis://:secret@bus"},
                (),
                ["DATABASE", "BUS"],
            ),
            ({"database": "postgresql://db/comptoir", "bus": None}, ("fee_bps=5",), []),
            ({}, ("database=postgresql://ada:secret@db/comptoir",), ["DATABASE"]),
        ],
    )
    def test_one_in_an_address_is_warned_of_and_not_repeated(
        self, flags: dict[str, str | None], pairs: tuple[str, ...], names: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        _warn_of_passwords(flags, pairs)
        said = capsys.readouterr().err
        assert [
            line.rpartition("COMPTOIR_")[2].split()[0] for line in said.splitlines()
        ] == names and "secret" not in said


class TestGreeting:
    @pytest.mark.parametrize("terminal", [True, False])
    def test_the_key_is_shown_on_a_terminal_only(self, terminal: bool) -> None:
        """Output that is no terminal ends up in a log that others read."""
        said = StringIO()
        greeting = Greeting(Console(file=said, width=200, force_terminal=terminal, color_system=None))
        greeting.paste(url="http://x", key=KEY, models=[OnOffer("m", ["chat"], 1, 0, 0)], data="/a folder")

        assert (KEY in said.getvalue()) is terminal
        assert ("set -a; . '/a folder/quickstart.env'; set +a" in said.getvalue()) is not terminal
        assert ("$COMPTOIR_KEY" in said.getvalue()) is not terminal

    @pytest.mark.parametrize("key", [KEY, ""])
    def test_what_is_pasted_is_a_command_whatever_a_host_calls_its_model(self, key: str) -> None:
        name = "a'; echo 0wned; '\"; import evil #"
        found = dict(snippets(url="http://x", key=key, model=name, data=""))
        done = subprocess.run(
            ["/bin/sh", "-c", found["with curl"].replace("curl ", "printf '%s\\n' ", 1)],
            capture_output=True,
            text=True,
            check=True,
            env={"COMPTOIR_KEY": KEY},
        )
        lines = done.stdout.splitlines()
        assert json.loads(lines[-1])["model"] == name and f"Authorization: Bearer {KEY}" in lines
        compile(found["with the OpenAI SDK"], "pasted", "exec")
        assert json.dumps(name) in found["with the OpenAI SDK"]
