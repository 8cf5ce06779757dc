"""What owners ask for: which events on request the owner of an account gets; whoever has a webhook for all gets all."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

ASKED = "UPDATE accounts SET asked_events = 7 WHERE id IN (SELECT owner_id FROM webhooks WHERE types = '')"


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("accounts", sa.Column("asked_events", integer, nullable=True))
    op.execute(ASKED)
