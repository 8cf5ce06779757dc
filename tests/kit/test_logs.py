"""Logs: one JSON object a line, fields from context and extra, and no secret in any of them."""

import io
import logging

import msgspec
import pytest

from comptoir.kit import logs


@pytest.fixture
def restored_root() -> object:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield None
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("restored_root")
class TestSetUp:
    def test_json_lines_carry_message_context_and_extra(self) -> None:
        stream = io.StringIO()
        logs.set_up(level="info", form="json", stream=stream)

        with logs.context(job="job_1"):
            logging.getLogger("comptoir.x").info("leased %s", "it", extra={"host": "host_1"})

        line = msgspec.json.decode(stream.getvalue())
        assert line["message"] == "leased it"
        assert (line["level"], line["logger"], line["job"], line["host"]) == ("info", "comptoir.x", "job_1", "host_1")

    def test_context_ends_with_its_block(self) -> None:
        stream = io.StringIO()
        logs.set_up(level="info", form="text", stream=stream)

        with logs.context(job="job_1"), logs.context(attempt="att_1"):
            logging.getLogger("a").info("inside")
        logging.getLogger("a").info("outside")

        inside, outside = stream.getvalue().splitlines()
        assert inside.endswith("a: inside  job=job_1  attempt=att_1")
        assert outside.endswith("a: outside")

    def test_tracebacks_come_with_the_record(self) -> None:
        stream = io.StringIO()
        logs.set_up(level="info", form="json", stream=stream)

        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("a").exception("failed")

        assert "ValueError: broken" in msgspec.json.decode(stream.getvalue())["error"]

    def test_a_line_break_in_a_message_makes_no_second_line(self) -> None:
        stream = io.StringIO()
        logs.set_up(level="info", form="text", stream=stream)

        logging.getLogger("a").info("one\n12:00:00.000 ERROR forged")

        assert len(stream.getvalue().splitlines()) == 1

    def test_a_terminal_obeys_nothing_that_is_quoted(self) -> None:
        """Hosts and containers say what they like when they fail, and the log quotes them."""
        stream = io.StringIO()
        logs.set_up(level="info", form="text", stream=stream)

        logging.getLogger("a").info("it said \x1b]0;mine\x07 \x9b2J", extra={"peer": "\x1b[2J"})

        assert stream.getvalue().endswith("it said \\x1b]0;mine\\x07 \\x9b2J  peer=\\x1b[2J\n")

    def test_a_second_set_up_replaces_the_first(self) -> None:
        first, second = io.StringIO(), io.StringIO()
        logs.set_up(level="info", form="text", stream=first)
        logs.set_up(level="warning", form="text", stream=second)

        logging.getLogger("a").warning("once")
        logging.getLogger("a").info("below the level")

        assert first.getvalue() == ""
        assert len(second.getvalue().splitlines()) == 1


SECRETS = [
    "ck_" + "A" * 43,
    "hk_live_" + "b" * 43,
    "inv_" + "c" * 32,
    "Authorization: Bearer sesame-open",
    "x-api-key=sesame-open",
    "GET /v1/jobs?api_key=sesame-open HTTP/1.1",
    "postgresql://me:sesame-open@there/db",
    "{'authorization': 'Basic sesame-open'}",
]


class TestWithoutSecrets:
    @pytest.mark.parametrize("text", SECRETS)
    def test_blanks_it(self, text: str) -> None:
        blanked = logs.without_secrets(text)

        assert "***" in blanked
        assert not any(secret in blanked for secret in ("AAAA", "bbbb", "sesame"))

    def test_leaves_ordinary_text_alone(self) -> None:
        text = "job_0123 took 3 ms at http://127.0.0.1:8080/jobs?limit=1"
        assert logs.without_secrets(text) == text
