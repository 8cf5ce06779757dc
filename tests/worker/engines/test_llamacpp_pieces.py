"""Stop strings that lie across a cut."""

import pytest

from comptoir.worker.engines.llamacpp_pieces import LlamaPiece, StopScanner


def scanned(before: str, stops: tuple[str, ...], *texts: str) -> tuple[str, bool]:
    """Return what is delivered of *texts* after *before*, and whether a stop string was hit."""
    scanner = StopScanner(stops, before=before)
    said = ""
    for text in texts:
        said += "".join(piece.text for piece in scanner.feed(LlamaPiece(text, 1, None)))
        if scanner.hit:
            return said, True
    return said + "".join(piece.text for piece in scanner.rest()), False


class TestStopScanner:
    @pytest.mark.parametrize(
        ("before", "stops", "texts", "said", "hit"),
        [
            ("the E", ("END",), ("N", "D", "x"), "", True),
            ("the E", ("END",), ("N", "o"), "No", False),
            ("the END", ("END",), ("x", "y"), "xy", False),
            ("the ", ("END",), ("a E", "ND"), "a ", True),
            ("ab", ("abab", "bx"), ("a", "b"), "", True),
            ("ab", ("abab", "bx"), ("a", "x", "bx"), "ax", True),
            ("the E", ("END",), ("N", "END"), "N", True),
            ("", ("END",), ("E", "ND"), "", True),
            ("the E", (), ("ND",), "ND", False),
            ("E", ("E",), ("x",), "x", False),
        ],
    )
    def test_a_beginning_that_was_delivered_counts(
        self, before: str, stops: tuple[str, ...], texts: tuple[str, ...], said: str, hit: bool
    ) -> None:
        assert scanned(before, stops, *texts) == (said, hit)
