"""Help teaches by example, and comes at once."""

import importlib
import subprocess
import sys

import click
import pytest

from comptoir.cli.main import COMMANDS, program
from comptoir.cli.work import WORDS
from tests.cli.conftest import Invoke, clean_environment

SLOW = ("aiohttp", "asyncio", "http.client", "msgspec", "nacl", "rich", "starlette", "uvicorn")
"""What help has no use for; with any of these it takes two to ten times as long."""


def every_command() -> list[list[str]]:
    context = click.Context(program)
    found = []
    for entry in COMMANDS:
        command = program.get_command(context, entry.name)
        assert command is not None
        found.append([entry.name])
        found += [[entry.name, name] for name in getattr(command, "commands", ())]
    return found


class TestHelp:
    @pytest.mark.parametrize("words", every_command(), ids=" ".join)
    def test_every_command_shows_an_example_of_itself(self, invoke: Invoke, words: list[str]) -> None:
        result = invoke(*words, "--help")

        assert result.exit_code == 0
        _, found, examples = result.output.partition("Example")
        assert found
        assert f"comptoir {' '.join(words)}" in examples

    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_the_group_lists_every_command_and_the_exit_codes(self, invoke: Invoke, flag: str) -> None:
        result = invoke(flag)

        assert result.exit_code == 0
        assert all(f"  {entry.name} " in result.output for entry in COMMANDS)
        assert "Exit codes: 0 fine" in result.output

    def test_the_line_in_the_group_is_the_first_paragraph_of_the_command(self) -> None:
        """The group's list is written by hand, so that no command is imported for it."""
        context = click.Context(program)
        for entry in COMMANDS:
            command = program.get_command(context, entry.name)
            assert command is not None and command.help is not None
            assert " ".join(command.help.split("\n\n")[0].split()) == entry.help

    def test_the_line_of_a_kind_is_the_first_paragraph_of_its_command(self) -> None:
        for entry in WORDS:
            module, _, attribute = entry.target.partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert " ".join(command.help.split("\n\n")[0].split()) == entry.help

    def test_help_imports_nothing_slow(self) -> None:
        code = (
            "import sys; sys.argv = ['comptoir', '--help']\n"
            "from comptoir.cli.main import main\n"
            "try: main()\n"
            f"except SystemExit: sys.exit(' '.join(name for name in {SLOW!r} if name in sys.modules) or 0)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: comptoir" in done.stdout

    def test_an_unknown_command_is_a_usage_error(self, invoke: Invoke) -> None:
        result = invoke("fly")

        assert result.exit_code == 2
        assert "No such command 'fly'" in result.output


class TestMain:
    def test_a_module_can_be_run(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "comptoir", "version"],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout.startswith("comptoir ")

    def test_a_failure_is_two_lines_and_no_traceback(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "comptoir", "balance", "--url", "http://127.0.0.1:9"],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 3
        assert done.stdout == ""
        first, second = done.stderr.splitlines()
        assert first == "✗ nothing listens at http://127.0.0.1:9"
        assert "comptoir up" in second

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        command = f"{sys.executable} -m comptoir config --json | head -c 10"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.stderr == ""
