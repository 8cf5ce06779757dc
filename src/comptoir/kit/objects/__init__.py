"""Objects: bytes under a path, in a folder or in an S3 bucket, behind one interface."""

import importlib
from typing import cast

from comptoir.kit.objects.types import (
    FilesExtraMissing,
    ObjectMissing,
    ObjectStore,
    StoreAway,
    StoreFull,
    StoreUnusable,
)

__all__ = [
    "FilesExtraMissing",
    "ObjectMissing",
    "ObjectStore",
    "StoreAway",
    "StoreFull",
    "StoreUnusable",
    "open_objects",
]


def open_objects(address: str) -> ObjectStore:
    """Open ``s3://BUCKET/PREFIX``, or a folder, which is made with mode 0700 if it is not there.

    An S3 server's address and keys come from the environment, as for other S3 clients: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL. Nothing is asked of it here.

    Raises:
        FilesExtraMissing: the extra ``comptoir[files]`` is not installed.
        StoreUnusable: the address or the environment can't be understood, or the folder can't be made.
    """
    try:
        # It needs an extra, and must not be imported where nobody keeps files.
        stores = importlib.import_module("comptoir.kit.objects.stores")
    except ModuleNotFoundError as error:
        raise FilesExtraMissing((error.name or "obstore").partition(".")[0]) from error
    return cast(ObjectStore, stores.open_store(address))
