"""The outbox: intents to act outside; and webhooks, which are the first to use it."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    waiting, over = sa.text("state = 'waiting'"), sa.text("over_ms IS NOT NULL")
    op.create_table(
        "outbox",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("lane", sa.LargeBinary(), nullable=False),
        sa.Column("number", number, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tried", number, nullable=False),
        sa.Column("attempts", number, nullable=False),
        sa.Column("attempts_end", number, nullable=False),
        sa.Column("due_ms", number, nullable=True),
        sa.Column("node_id", sa.LargeBinary(), nullable=True),
        sa.Column("created_ms", number, nullable=False),
        sa.Column("give_up_ms", number, nullable=False),
        sa.Column("over_ms", number, nullable=True),
        sa.Column("history", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_outbox_due_ms_partial", "outbox", ["due_ms"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("ix_outbox_lane_created_ms", "outbox", ["lane", "created_ms"], unique=False)
    op.create_index("ix_outbox_over_ms_partial", "outbox", ["over_ms"], sqlite_where=over, postgresql_where=over)
    op.create_index(
        "ix_outbox_owner_id_lane_tried_partial",
        "outbox",
        ["owner_id", "lane", "tried"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("parallel", number, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("cursor", number, nullable=False),
        sa.Column("failing_since_ms", number, nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until_ms", number, nullable=True),
        sa.Column("created_ms", number, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_webhooks_owner_id", "webhooks", ["owner_id"], unique=False)
