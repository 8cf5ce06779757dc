"""A real S3 server on loopback, moto's, one for each test process that asks, and a bucket of its own for each test."""

import importlib
import logging
import urllib.request
from collections.abc import Iterator

import pytest

from comptoir.kit.ids import new_id


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Give the address of the server."""
    # Imported where it is asked for: it takes a second.
    made = importlib.import_module("moto.server").ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = made(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_address(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give ``s3://…`` of an empty bucket, which this process has the keys of in its environment."""
    bucket = "files-" + new_id().hex()
    made = urllib.request.Request(f"{s3_endpoint}/{bucket}", method="PUT")
    urllib.request.urlopen(made, timeout=10).close()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket}/below/here"
