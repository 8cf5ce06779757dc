"""A receipt that comes back to the coordinators that signed it: their own key counts, and no other is needed."""

from typing import Any

import msgspec

from comptoir.kit import ids
from comptoir.receipts import Reason, ReceiptFacts, Verdict, build_and_sign, registry_of, verify_own
from comptoir.receipts.testing import JOB_ID, NOW_MS, make_facts, make_key, make_published_key, make_segment

COORDINATOR_KEY, HOST_KEY = make_key(1), make_key(2)
FIRST = make_segment(number=1, frames=3, key=HOST_KEY)
SECOND = make_segment(number=2, frames=2, before=FIRST, key=HOST_KEY)


class TestVerifyOwn:
    def verdict(self, facts: ReceiptFacts, **changes: Any) -> Verdict:
        payload, signature = build_and_sign(facts, COORDINATOR_KEY)
        own = registry_of([make_published_key(COORDINATOR_KEY, **changes)])
        return verify_own(payload, own, keyid=COORDINATOR_KEY.keyid, signature=signature)

    def test_it_needs_no_key_of_a_host(self) -> None:
        """A host that registered since the database's last commit is not in the registry any more."""
        found = self.verdict(make_facts(segments=[FIRST, SECOND]))

        assert found.ok and found.statement is not None
        assert found.statement.predicate.job == ids.public("job", JOB_ID)

    def test_after_the_key_was_revoked_it_is_refused(self) -> None:
        assert self.verdict(make_facts(), revoked_ms=NOW_MS).reason is Reason.KEY_REVOKED

    def test_amounts_that_do_not_add_up_are_refused(self) -> None:
        facts = make_facts(segments=[FIRST])
        more = [msgspec.structs.replace(row, amount_uusd=row.amount_uusd + 1) for row in facts.transfers]
        charged = sum(row.amount_uusd for row in more)
        dearer = msgspec.structs.replace(
            facts, transfers=more, charged_uusd=charged, fee_uusd=facts.fee_uusd + 1, held_uusd=charged + 50
        )

        assert self.verdict(dearer).reason is Reason.AMOUNTS_DO_NOT_ADD_UP
