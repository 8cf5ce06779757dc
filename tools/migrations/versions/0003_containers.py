"""Containers: jobs that are chains of them, whose caller's address counts; statuses that containers of old record."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CALLER = sa.text("caller IS NOT NULL")


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "recorded",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("containers", sa.Text(), nullable=False),
        sa.Column("updated_ms", big, nullable=False),
        sa.PrimaryKeyConstraint("scope", "name"),
    )
    op.create_index("ix_recorded_scope_updated_ms", "recorded", ["scope", "updated_ms"], unique=False)
    op.create_index("ix_recorded_updated_ms", "recorded", ["updated_ms"], unique=False)
    op.add_column("jobs", sa.Column("caller", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("steps", sa.LargeBinary(), nullable=True))
    for columns in (["owner_id", "id"], ["owner_id", "caller", "id"]):
        name = f"ix_jobs_{'_'.join(columns)}_partial"
        op.create_index(name, "jobs", columns, unique=False, sqlite_where=CALLER, postgresql_where=CALLER)
