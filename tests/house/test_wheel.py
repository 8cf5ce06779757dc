"""The wheel is whole: it carries every file of the package, code or not, the OpenAPI documents and the licence."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house import tree


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the wheel once and give the names inside."""
    folder: Path = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=tree.ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


class TestWheel:
    def test_it_carries_every_file_of_the_package(self, contents: set[str]) -> None:
        """A model, a page or a migration left out would be missed only by people who install."""
        package = {path.removeprefix("src/") for path in tree.files() if path.startswith("src/comptoir/")}

        assert "comptoir/py.typed" in package
        assert package - contents == set()

    def test_it_carries_nothing_else(self, contents: set[str]) -> None:
        tracked = {path.removeprefix("src/") for path in tree.files()}

        assert {name for name in contents if name.startswith("comptoir/")} - tracked == set()

    def test_it_carries_openapi_and_licence(self, contents: set[str]) -> None:
        assert any(name.endswith("data/share/comptoir/openapi/README.md") for name in contents)
        assert any(name.endswith("licenses/LICENSE") for name in contents)
