"""The walls stand: each contract of .importlinter breaks on the import it forbids, and on nothing else."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import tree

CONFIG = tree.ROOT / ".importlinter"
SOURCE = tree.ROOT / "src" / "comptoir"

FORBIDDEN = [
    # contract, file under src/comptoir, what it must not say
    ("floors", "kit/upwards.py", "import comptoir.ledger"),
    ("floors", "ledger/sideways.py", "import comptoir.jobs"),
    ("floors", "worker/coordinator.py", "import comptoir.dispatch"),
    ("floors", "worker/room.py", "import comptoir.ledger"),
    ("floors", "worker/told.py", "import comptoir.events"),
    ("floors", "attic/__init__.py", ""),
    ("floors", "web/upwards.py", "import comptoir.dialects"),
    ("doors", "dispatch/window.py", "from comptoir.ledger import store"),
    ("doors", "app/window.py", "import comptoir.attic.tables"),
    ("doors", "dispatch/fake.py", "from comptoir.ledger.testing import make_account"),
    ("dialects", "dialects/openai/meeting.py", "import comptoir.dialects.aitbc"),
    ("worker", "dispatch/starter.py", "import comptoir.worker"),
    ("floors", "dispatch/upwards.py", "import comptoir.transports"),
    ("http", "jobs/pages.py", "import starlette.responses"),
    ("verbs", "dispatch/called.py", "import aiohttp"),
    ("verbs", "dispatch/served.py", "import starlette.websockets"),
    ("routing", "routing/impure.py", "import time"),
    ("routing", "routing/stored.py", "import comptoir.kit.db"),
    ("workshop", "kit/orm.py", "import sqlalchemy"),
]

ROOMY = ("ledger/store.py", "ledger/tables.py", "ledger/testing.py", "kit/db.py")
WELCOME = [
    # Imports that every contract must let pass.
    ("ledger/service.py", "from comptoir.ledger import store"),
    ("reports/monthly.py", "from comptoir.ledger import tables"),
    ("dispatch/submit.py", "import comptoir.ledger, comptoir.jobs, comptoir.kit.db"),
    ("ledger/told.py", "import comptoir.events"),
    ("cli/host.py", "import comptoir.worker"),
    ("dialects/openai/routes.py", "import comptoir.dispatch, starlette"),
    ("transports/push/channel.py", "import comptoir.dispatch, aiohttp"),
    ("worker/loop.py", "import comptoir.link, aiohttp"),
]


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CONFIG)
    return parser


def floors() -> set[str]:
    """Return the name of every package and module that has a floor."""
    return set(re.findall(r"\w+", config()["importlinter:contract:floors"]["layers"]))


def plant(root: Path, path: str, text: str = "") -> None:
    """Write one module, and make packages of the folders above it."""
    file = root / "comptoir" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    for folder in file.relative_to(root).parents:
        if folder.name:
            (root / folder / "__init__.py").touch()


def lint(root: Path, contract: str) -> subprocess.CompletedProcess[str]:
    """Run our contract over the package planted in *root*."""
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    options = ["--config", str(CONFIG), "--contract", contract, "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{tree.ROOT}", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", program, *options],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """Give a folder with a package on every floor, and only imports that are welcome."""
    for name in floors():
        plant(tmp_path, f"{name}/__init__.py")
    for path in ROOMY:
        plant(tmp_path, path)
    for dialect in ("openai", "aitbc"):
        plant(tmp_path, f"dialects/{dialect}/__init__.py")
    for path, text in WELCOME:
        plant(tmp_path, path, text)
    return tmp_path


class TestContracts:
    @pytest.mark.parametrize(("contract", "path", "text"), FORBIDDEN)
    def test_a_forbidden_import_breaks_its_contract(self, core: Path, contract: str, path: str, text: str) -> None:
        if contract == "doors":
            plant(core, "attic/tables.py")  # A room that no contract names has its door all the same.
        plant(core, path, text)

        result = lint(core, contract)

        assert result.returncode == 1
        assert "BROKEN" in result.stdout
        assert path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in result.stdout

    def test_welcome_imports_break_none(self, core: Path) -> None:
        names = [section.rpartition(":")[2] for section in config().sections() if ":contract:" in section]

        assert {name: lint(core, name).returncode for name in names} == dict.fromkeys(names, 0)

    def test_every_contract_is_proved(self) -> None:
        names = {section.rpartition(":")[2] for section in config().sections() if ":contract:" in section}

        assert names == {contract for contract, _, _ in FORBIDDEN}


def unwalled(source: Path, named: set[str]) -> list[str]:
    """Return what stands under *source* and either has no floor or can't be seen by the contracts."""
    wrong = []
    for entry in sorted(source.iterdir()):
        is_code = entry.suffix == ".py" or any(entry.rglob("*.py"))
        if is_code and entry.stem not in {*named, "__init__", "__main__"}:
            wrong.append(f"{entry.stem} has no floor in .importlinter")
    folders = {file.parent for file in source.rglob("*.py")}
    # import-linter walks packages; a folder without __init__.py would stand outside every wall.
    return wrong + sorted(f"{f.name} has no __init__.py" for f in folders if not (f / "__init__.py").exists())


class TestFloors:
    def test_everything_has_a_floor(self) -> None:
        assert unwalled(SOURCE, floors()) == []

    def test_a_package_without_a_floor_is_found(self, tmp_path: Path) -> None:
        plant(tmp_path, "attic/boxes.py")
        plant(tmp_path, "ledger/__init__.py")

        assert unwalled(tmp_path / "comptoir", {"ledger"}) == ["attic has no floor in .importlinter"]

    def test_a_folder_that_is_no_package_is_found(self, tmp_path: Path) -> None:
        plant(tmp_path, "ledger/rules/fees.py")
        (tmp_path / "comptoir" / "ledger" / "rules" / "__init__.py").unlink()

        assert unwalled(tmp_path / "comptoir", {"ledger"}) == ["rules has no __init__.py"]
