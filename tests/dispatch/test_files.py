"""Files as the settings have them: where they are, what may be stored, and what the sweep gives up."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from comptoir.blobs import FilesFull, FileTooLarge, QuotaReached, UnknownFile
from comptoir.dispatch.files import Files, store_address
from comptoir.kit.errors import Refusal
from comptoir.kit.objects import ObjectStore
from comptoir.kit.objects.stores import Bucket, Folder
from comptoir.settings import Settings
from tests.cli.conftest import clean_environment
from tests.street import open_street


class TestFiles:
    def test_a_folder_or_a_bucket_as_the_setting_says(self, tmp_path: Path, s3_address: str) -> None:
        async def opened(folder: Path, **settings: str) -> ObjectStore:
            async with open_street(folder, **settings) as street:
                return street.core.state(Files).blobs._objects

        stores = [asyncio.run(opened(tmp_path)), asyncio.run(opened(tmp_path / "other", files_store=s3_address))]

        assert [type(store) for store in stores] == [Folder, Bucket]
        assert (tmp_path / "data" / "files").stat().st_mode & 0o777 == 0o700
        assert store_address(Settings(files_store="elsewhere")) == str(Path("elsewhere").resolve())

    async def test_each_limit_is_the_settings(self, tmp_path: Path) -> None:
        limits = {
            "file_bytes_max": 10,
            "files_bytes_per_owner_max": 15,
            "files_per_owner_max": 2,
            "files_bytes_max": 20,
        }
        async with open_street(tmp_path, **limits) as street:
            blobs = street.core.state(Files).blobs

            async def begin(owner: bytes, size: int) -> type[Exception] | None:
                try:
                    await blobs.begin(owner_id=owner * 16, name="a", size=size)
                except Refusal as refusal:
                    return type(refusal)
                return None

            told = [
                await begin(*each) for each in ((b"a", 11), (b"a", 10), (b"a", 6), (b"a", 1), (b"a", 1), (b"b", 10))
            ]

        assert told == [FileTooLarge, None, QuotaReached, None, QuotaReached, FilesFull]

    async def test_the_sweep_gives_up_what_has_waited_too_long(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, upload_s=60, files_retention_days=1) as street:
            files = street.core.state(Files)
            upload = await files.blobs.begin(owner_id=street.buyer_id, name="a", size=5)
            file = await files.blobs.begin(owner_id=street.buyer_id, name="b", size=0)
            used = []
            for seconds in (59, 2, 86_400):
                street.clock.advance(seconds=seconds)
                await files.collect()
                used.append((await files.blobs.usage(street.buyer_id)).files_counted)

            with pytest.raises(UnknownFile):
                await files.blobs.find(upload.id)
            with pytest.raises(UnknownFile):
                await files.blobs.find(file.id)

        assert used == [2, 1, 0]

    def test_without_the_extra_everything_else_works(self) -> None:
        """Whoever installed the base and asks for files is told what is missing."""
        code = (
            "import sys; sys.modules['obstore'] = None\n"
            "from comptoir.kit.objects import FilesExtraMissing, open_objects\n"
            "import comptoir.app\n"
            "try: open_objects('nowhere')\n"
            "except FilesExtraMissing as missing: print(missing.message)\n"
        )

        said = subprocess.run(
            [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True
        )

        assert said.stdout == "this trading post keeps no files: it needs the package obstore (comptoir[files])\n"
