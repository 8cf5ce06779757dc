-- Compiled from tools/migrations/versions/0011_promotions.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE promo_corrections (
    id BYTEA NOT NULL,
    account_id BYTEA NOT NULL,
    amount_uusd BIGINT NOT NULL,
    PRIMARY KEY (id)
);

ALTER TABLE accounts ADD COLUMN promo_uusd BIGINT;

ALTER TABLE transfers ADD COLUMN promo_uusd BIGINT;

ALTER TABLE holds ADD COLUMN own_money BIGINT;

INSERT INTO promo_corrections (id, account_id, amount_uusd)
SELECT a.id, a.id, x.left_uusd FROM accounts a JOIN (
    SELECT t.account_id, SUM(t.amount_uusd) AS left_uusd FROM (
        SELECT credit_id AS account_id, amount_uusd FROM transfers WHERE kind IN ('signup', 'allowance')
        UNION ALL
        SELECT debit_id, -amount_uusd FROM transfers
    ) t GROUP BY t.account_id
) x ON x.account_id = a.id
WHERE a.kind IN ('buyer', 'unnamed') AND x.left_uusd > 0;

INSERT INTO promo_corrections (id, account_id, amount_uusd)
SELECT a.id, a.id, -(SELECT SUM(amount_uusd) FROM promo_corrections) FROM accounts a
WHERE a.kind = 'promotions' AND EXISTS (SELECT 1 FROM promo_corrections);

UPDATE accounts SET promo_uusd = (SELECT c.amount_uusd FROM promo_corrections c WHERE c.id = accounts.id)
WHERE id IN (SELECT c.id FROM promo_corrections c);
