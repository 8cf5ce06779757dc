"""What several keepers need, decided on and written together: for verbs that keep files with whatever needs them."""

from collections.abc import Iterable, Sequence

from comptoir.blobs import store
from comptoir.blobs.tables import FILES, KEEPS
from comptoir.blobs.types import Blob
from comptoir.kit.db import Table, Tx


def file_rows(file_ids: Iterable[bytes]) -> tuple[Table, Iterable[bytes]]:
    """Return the rows that `Keeps` locks, for a verb to declare."""
    return FILES, file_ids


class Keeps:
    """Files, locked, and who needs them from now on."""

    def __init__(self, found: dict[bytes, Blob], now_ms: int) -> None:
        self._found = found
        self._now_ms = now_ms
        self._rows: dict[tuple[bytes, str], tuple[object, ...]] = {}

    @classmethod
    def load(cls, tx: Tx, file_ids: Iterable[bytes], now_ms: int) -> "Keeps":
        """Load and lock *file_ids*."""
        return cls({blob.id: blob for blob in store.rows_of(tx, sorted(set(file_ids)))}, now_ms)

    def has(self, owner_id: bytes, file_ids: Sequence[bytes]) -> bool:
        """Tell whether all of *file_ids* are complete files of *owner_id* that have not expired."""
        found = [self._found.get(each) for each in file_ids]
        return all(
            blob is not None and blob.owner_id == owner_id and blob.complete and store.is_there(blob, self._now_ms)
            for blob in found
        )

    def keep(self, keeper: str, file_ids: Sequence[bytes]) -> None:
        """Have *keeper* need *file_ids*, which are there (`has`), until `Blobs.release`."""
        for file_id in file_ids:
            self._rows[file_id, keeper] = (file_id, keeper, self._now_ms, None)

    def apply(self, tx: Tx) -> None:
        """Write it."""
        if self._rows:
            tx.insert(KEEPS, list(self._rows.values()), ignore_conflicts=True)
