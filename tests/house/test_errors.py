"""Every refusal has a status, every dialect renders it, and docs/errors.md says so."""

import pytest
from tools import error_table

from comptoir import routing
from comptoir.desk import status_of
from comptoir.dialects import DIALECTS
from comptoir.dispatch import errors as street
from comptoir.hosts import NoFreeSlot, UnknownHost
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import EmailTaken, UnknownAccessKey, UnknownUser, UsernameTaken
from comptoir.jobs import JobExists, JobFinished, NotYourLease, UnknownJob
from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated, Refusal, TooManyRequests, Unavailable
from comptoir.kit.http import Dialect, MethodNotAllowed, NoSuchPath, PayloadTooLarge, UnsupportedBody
from comptoir.ledger import HoldMismatch, InsufficientCredit, UnknownAccount
from comptoir.receipts import BadRegistry, KeyTaken, UnknownKey, UnknownReceipt

ID = b"\1" * 16

error_table.load_all()
MET = sorted({one for one in error_table.refusals() if not error_table.of_programs(one)}, key=error_table.name_of)


ONES = (
    InvalidField("model", "is required"), NotAuthenticated("no key"), NotAllowed("not yours"),
    TooManyRequests("slower", retry_after_s=2.5), Unavailable("later"), NoSuchPath("nothing here"), MethodNotAllowed(("GET",)),
    PayloadTooLarge(10), UnsupportedBody("no JSON"), street.UnknownModel("m", ("a", "b")), street.NoHostPossible("too dear"),
    street.QueueFull(5), street.TooManyJobs(5), street.PromptTooLong(10), street.FramesOutOfOrder(expected=1, got=3),
    street.AnswerTooLarge("too large"), street.BadSegment("not its own"), NoFreeSlot(ID, "m"), UnknownHost(ID),
    IdempotencyMismatch(), EmailTaken("a@b"), UsernameTaken("ada"), UnknownAccessKey(ID), UnknownUser(ID), JobExists(),
    JobFinished("completed"), NotYourLease(), UnknownJob(), HoldMismatch("closed"), UnknownAccount("none"),
    InsufficientCredit(needed_uusd=2, free_uusd=1), BadRegistry("torn"), KeyTaken("ab"), UnknownKey("ab"), UnknownReceipt(ID),
    routing.NoHostPossible(routing.Refused("m", 1, 1, ())), routing.UnknownPreference("routing", "unknown"),
)  # fmt: skip
"""One of each refusal that a request may meet."""


class TestStatuses:
    def test_every_refusal_that_a_request_may_meet_has_a_row(self) -> None:
        assert error_table.without_status() == []

    def test_a_refusal_without_a_row_is_found(self) -> None:
        class Forgotten(Refusal):
            """Nobody gave it a status."""

        Forgotten.__module__ = "comptoir.jobs.errors"
        try:
            assert any("Forgotten" in name for name in error_table.without_status())
        finally:
            # Out of the walk again: other tests look at what ships.
            Forgotten.__module__ = "tests"

    def test_what_is_no_refusal_is_a_500(self) -> None:
        assert status_of(ZeroDivisionError) == 500


class TestDialects:
    def test_one_of_each_refusal_is_tried(self) -> None:
        leaves = {one for one in MET if not one.__subclasses__()}

        assert {error_table.name_of(one) for one in leaves - {type(one) for one in ONES}} == set()

    @pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
    def test_every_refusal_is_rendered_at_the_status_that_is_declared(self, dialect: Dialect) -> None:
        for error in ONES:
            reply = dialect.render_error(error, None)

            assert reply.status == dialect.error_statuses(type(error)), error
            assert 400 <= reply.status < 500 or reply.status == 503

    @pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
    def test_a_bug_says_nothing_of_its_inside(self, dialect: Dialect) -> None:
        reply = dialect.render_error(ValueError("the password is hunter2"), None)

        assert reply.status == 500
        assert b"hunter2" not in reply.body


class TestPage:
    def test_it_says_what_the_code_says(self) -> None:
        """Mend it with ``python -m tools.error_table``."""
        text = error_table.PAGE.read_text()

        assert text == error_table.page(text)
