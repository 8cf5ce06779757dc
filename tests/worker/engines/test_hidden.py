"""What of an engine's words does not reach a buyer."""

import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.hidden import Hidden, without_addresses


class TestWithoutAddresses:
    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("Cannot connect to host 127.0.0.1:8000 ssl:default", "Cannot connect to host … ssl:default"),
            ("no server at http://gpu1:8000/v1/models?x=1: gone", "no server at … gone"),
            ("tcp://[::1]:5555 and [fd00::1]:80", "… and …"),
            ("localhost:11434 refused; localhost too", "… refused; … too"),
            ("open /run/engine/in.sock failed", "open … failed"),
            ("FileNotFoundError: '/srv/models/x.gguf'", "FileNotFoundError: '…'"),
            # Public addresses are nobody's inside, and these are no addresses at all.
            ("see https://docs.vllm.ai/en/x and 8.8.8.8:53", "see https://docs.vllm.ai/en/x and 8.8.8.8:53"),
            ("version 1.9.2.1 of 1/2 tokens, and/or 3:4", "version 1.9.2.1 of 1/2 tokens, and/or 3:4"),
        ],
    )
    def test_addresses_inside_and_paths_are_left_out(self, said: str, told: str) -> None:
        found = without_addresses(EngineError("x", said, status=500, body=f'{{"error":"{said}"}}'.encode()))

        assert (found.code, found.fault, found.status, found.message) == ("x", "host", 500, told)
        assert found.body.decode() == f'{{"error":"{told}"}}'

    def test_a_refusal_of_the_buyers_request_may_be_about_a_path(self) -> None:
        said = "/messages/0/content is no text; asked 10.0.0.5:80 over /run/in.sock"

        found = without_addresses(EngineError("bad_request", said, fault="buyer", retry_after_s=2.0, body=b"\xff{}"))

        assert found.message == "/messages/0/content is no text; asked … over …"
        assert (found.fault, found.retry_after_s, found.body) == ("buyer", 2.0, b"\xff{}")

    def test_what_says_nothing_of_it_is_the_same_error(self) -> None:
        error = EngineError("x", "CUDA out of memory", body=b'{"error":"CUDA"}')

        assert without_addresses(error) is error


class TestHidden:
    def test_an_engine_elsewhere_is_not_named_either(self) -> None:
        hidden = Hidden("https://models.example:9000", "sk-secret")
        error = EngineError("x", "https://models.example:9000/v1 says no to sk-secret", body=b"at models.example")

        found = hidden.error(error)

        assert without_addresses(found).message == "… says no to …"
        assert found.body == "at …".encode()
