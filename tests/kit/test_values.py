"""How much becomes of a body, counted before it is decoded."""

import pytest

from comptoir.kit.http.values import FEW_VALUES, STEP_BYTES, STRINGS_MAX, VALUES_MAX, values_step_by_step
from tests.kit.bounded_server import serving

MANY = VALUES_MAX + 1


class TestValues:
    @pytest.mark.parametrize(
        ("body", "least", "most"),
        [
            (b'{"a":[1,2,3]}', 4, 4),
            (b"[" + b"1," * MANY + b"1]", MANY, MANY + 2),
            (b"[" + b"[]," * MANY + b"1]", 2 * MANY, 2 * MANY + 2),
            (b"[" + b'"",' * MANY + b"1]", MANY, MANY + 2),
            (b'{"prompt":"' + b"a, b[0]," * MANY + b'"}', 1, 3),
            (rb'{"prompt":"' + rb'{\"a\":[1,2]},' * MANY + b'"}', 1, 3),
            (rb'{"prompt":"a\\","b":[' + b"1," * MANY + rb'"\"' + b"," * MANY + b'"]}', MANY, MANY + 5),
            (b'"' + b"," * FEW_VALUES + b'"', FEW_VALUES, FEW_VALUES),
            (b'["' + b"," * (STEP_BYTES - 3) + rb'\",",' + b"1," * MANY + b'"]', MANY, MANY + 3),
            (b'["' + b"," * (STEP_BYTES - 4) + rb'\\",' + b"1," * MANY + b"1]", MANY, MANY + 3),
            (b'["' + b"\\" * 5 * STEP_BYTES + b'",' + b"1," * MANY + b"1]", MANY, MANY + 3),
            (b'"a",' * STRINGS_MAX + b"," * MANY, MANY, MANY + STRINGS_MAX),
        ],
        ids=[
            "few", "numbers", "lists", "texts", "a text of commas", "a text of JSON", "a text that ends in a backslash",
            "few are not looked at closely", "a step ends within an escape", "a step ends after one",
            "backslashes alone", "many texts are not either",
        ],
    )  # fmt: skip
    def test_it_counts_what_is_no_text(self, body: bytes, least: int, most: int) -> None:
        *_, count = values_step_by_step(body)

        assert least <= count <= most

    async def test_a_body_of_too_many_is_refused_before_it_is_decoded(self) -> None:
        async with serving(body_bytes_max=1 << 23) as server:
            answer = await server.ask(_post(b"[" + b"1," * MANY + b"1]"))

            assert answer.startswith(b"HTTP/1.1 400") and b"and 1,048,576 are allowed" in answer
            assert server.got == [] and server.traffic.bodies.held == 0

    async def test_what_becomes_of_it_counts_with_the_bodies_of_all(self) -> None:
        body = b"[" + b"1," * 100_000 + b"1]"
        async with serving(bodies_bytes_max=4 << 20, bodies_bytes_per_address_max=4 << 20) as server:
            refused = await server.ask(_post(body))
            taken = await server.ask(_post(body[:-100_000] + b"1]"))

            assert refused.startswith(b"HTTP/1.1 503") and taken.startswith(b"HTTP/1.1 200")
            assert server.got == [len(body) - 100_000 + 2] and server.traffic.bodies.held == 0


def _post(body: bytes) -> bytes:
    head = b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
