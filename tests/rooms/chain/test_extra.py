"""Without the extra everything starts, reading works, and hashing says what to install."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules[{missing!r}] = None
import comptoir.app, comptoir.chain as chain
print(chain.Domain(chain_id=1, verifying_contract=chain.NOBODY).chain_id)
try:
    chain.containers_id(["echo"])
except chain.ChainExtraMissing as error:
    print(error.package, "|", error.message)
"""


class TestWithout:
    @pytest.mark.parametrize(("missing", "named"), [("coincurve", "coincurve"), ("eth_hash", "eth_hash")])
    def test_the_coordinator_starts_and_hashing_is_refused(self, missing: str, named: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(missing=missing)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        first, second = done.stdout.splitlines()
        assert first == "1"
        assert second.startswith(f"{named} | ") and "pip install 'comptoir[chain]'" in second
