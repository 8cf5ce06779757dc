"""The Node.js of the dev environment finds the SDK that tests/node/package-lock.json names."""

import json
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.node
class TestInstall:
    def test_the_locked_sdk_is_the_one_installed(self, node: str) -> None:
        locked = json.loads((HERE / "package-lock.json").read_text())["packages"]["node_modules/openai"]["version"]
        script = 'import { VERSION } from "openai/version"; console.log(VERSION)'

        result = subprocess.run(
            [node, "--input-type=module", "--eval", script], cwd=HERE, capture_output=True, text=True, check=False
        )

        assert (result.stdout.strip(), result.stderr) == (locked, "")

    def test_the_lock_names_no_registry(self) -> None:
        packages = json.loads((HERE / "package-lock.json").read_text())["packages"]

        assert [name for name, package in packages.items() if "resolved" in package] == []
