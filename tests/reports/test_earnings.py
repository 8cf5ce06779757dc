"""What a host earned with each kind of work, on both databases."""

from pathlib import Path

from comptoir.reports import KindPay, earned_by_kind
from tests.street import finish_well, open_street


class TestEarnedByKind:
    async def test_it_is_what_the_ledger_paid_for_each_kind(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            host, _ = await street.host(slots=2)
            idle, _ = await street.host(slots=2)
            for tokens in (3, 5):
                job = await street.submit()
                assert job.lease is not None
                await finish_well(street.core, job, tokens=tokens)

            found = [await earned_by_kind(street.core.db, each) for each in (host, idle)]
            paid = [(await street.core.ledger.account(each)).balance_uusd for each in (host, idle)]

        assert sum(paid) > 0
        (told,) = [one for of_host in found for one in of_host if one.jobs == 2] or [None]
        assert told == KindPay("chat", 2, sum(paid)) and min(map(len, found)) == 0, (found, paid)
