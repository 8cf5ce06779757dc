"""The walls stand: each contract of .importlinter breaks on the import it forbids, and on nothing else."""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
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


LINT = """
import contextlib, importlib, io, json, sys
from importlinter.application import output
from importlinter.cli import lint_imports
said, own = [], list(sys.path)
for root, contracts in json.load(sys.stdin):
    sys.path[:] = [root, *own]
    importlib.invalidate_caches()
    with output.console.capture() as written:
        status = lint_imports(config_filename=sys.argv[1], limit_to_contracts=contracts, no_cache=True, no_logo=True)
    said.append((status, written.get()))
json.dump(said, sys.stdout)
"""


def lint(asked: Sequence[tuple[Path, Sequence[str]]]) -> list[tuple[int, str]]:
    """Run our contracts, those named, over the package planted in each root; return status and report of each.

    In one process, which takes longer to start than to look at a package; not in ours, where `comptoir` is the real
    one.
    """
    result = subprocess.run(
        [sys.executable, "-c", LINT, str(CONFIG)],
        env={**os.environ, "PYTHONPATH": str(tree.ROOT), "COLUMNS": "200"},
        input=json.dumps([(str(root), list(contracts)) for root, contracts in asked]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [(status, report) for status, report in json.loads(result.stdout)]


def contracts() -> list[str]:
    """Return the name of every contract."""
    return [section.rpartition(":")[2] for section in config().sections() if ":contract:" in section]


def plant_core(root: Path) -> Path:
    """Make a package on every floor below *root*, with only imports that are welcome."""
    for name in floors():
        plant(root, f"{name}/__init__.py")
    for path in ROOMY:
        plant(root, path)
    for dialect in ("openai", "aitbc"):
        plant(root, f"dialects/{dialect}/__init__.py")
    for path, text in WELCOME:
        plant(root, path, text)
    return root


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Give what is said of each planted import, by its file, and of the package without any, as ``""``."""
    folder = tmp_path_factory.mktemp("walls")
    asked: dict[str, tuple[Path, list[str]]] = {"": (plant_core(folder / "welcome"), contracts())}
    for number, (contract, path, text) in enumerate(FORBIDDEN):
        root = plant_core(folder / str(number))
        if contract == "doors":
            plant(root, "attic/tables.py")  # A room that no contract names has its door all the same.
        plant(root, path, text)
        asked[path] = root, [contract]
    return dict(zip(asked, lint(list(asked.values())), strict=True))


class TestContracts:
    @pytest.mark.parametrize("path", [path for _, path, _ in FORBIDDEN])
    def test_a_forbidden_import_breaks_its_contract(self, reports: dict[str, tuple[int, str]], path: str) -> None:
        status, report = reports[path]

        assert status == 1
        assert "BROKEN" in report
        assert path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in report

    def test_welcome_imports_break_none(self, reports: dict[str, tuple[int, str]]) -> None:
        status, report = reports[""]

        assert status == 0
        assert f"Contracts: {len(contracts())} kept, 0 broken." in report

    def test_every_contract_is_proved(self) -> None:
        assert set(contracts()) == {contract for contract, _, _ in FORBIDDEN}


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
