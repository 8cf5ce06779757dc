"""The first schema: people and keys, the ledger, hosts, jobs, receipts, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.create_table(
        "access_keys",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_kind", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", INT, nullable=False),
        sa.Column("revoked_ms", INT, nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_access_keys_owner_id", "access_keys", ["owner_id"], unique=False)
    op.create_index("uq_access_keys_id", "access_keys", ["id"], unique=True)
    op.create_table(
        "accounts",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("balance_uusd", INT, nullable=False),
        sa.Column("held_uusd", INT, nullable=False),
        sa.Column("created_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "answers",
        sa.Column("job_id", sa.LargeBinary(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.Column("usage", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.LargeBinary(), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("first_frame", INT, nullable=False),
        sa.Column("end_frame", INT, nullable=False),
        sa.Column("tokens", INT, nullable=False),
        sa.Column("paid_uusd", INT, nullable=False),
        sa.Column("started_ms", INT, nullable=False),
        sa.Column("ended_ms", INT, nullable=True),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("chain", sa.LargeBinary(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_attempts_job_id", "attempts", ["job_id"], unique=False)
    op.create_table(
        "holds",
        sa.Column("job_id", sa.LargeBinary(), nullable=False),
        sa.Column("account_id", sa.LargeBinary(), nullable=False),
        sa.Column("amount_uusd", INT, nullable=False),
        sa.Column("settled_uusd", INT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=True),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("vram_mib", INT, nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("transport", sa.Text(), nullable=False),
        sa.Column("endpoint_url", sa.Text(), nullable=True),
        sa.Column("models", sa.LargeBinary(), nullable=False),
        sa.Column("slots", INT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=True),
        sa.Column("created_ms", INT, nullable=False),
        sa.Column("last_seen_ms", INT, nullable=False),
        sa.Column("jobs_done", INT, nullable=False),
        sa.Column("jobs_failed", INT, nullable=False),
        sa.Column("jobs_lost", INT, nullable=False),
        sa.Column("tokens_done", INT, nullable=False),
        sa.Column("good_milli", INT, nullable=False),
        sa.Column("bad_milli", INT, nullable=False),
        sa.Column("outcome_ms", INT, nullable=False),
        sa.Column("retired_ms", INT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_hosts_owner_id", "hosts", ["owner_id"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("resource_id", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "name"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_created_ms", "idempotency", ["created_ms"], unique=False)
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.LargeBinary(), nullable=False),
        sa.Column("seq", INT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_ms", INT, nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("prompt_tokens_max", INT, nullable=False),
        sa.Column("max_tokens", INT, nullable=False),
        sa.Column("price_in_uusd_per_mtok", INT, nullable=False),
        sa.Column("price_out_uusd_per_mtok", INT, nullable=False),
        sa.Column("hold_uusd", INT, nullable=False),
        sa.Column("detached", INT, nullable=False),
        sa.Column("deadline_ms", INT, nullable=False),
        sa.Column("created_ms", INT, nullable=False),
        sa.Column("started_ms", INT, nullable=True),
        sa.Column("finished_ms", INT, nullable=True),
        sa.Column("host_id", sa.LargeBinary(), nullable=True),
        sa.Column("attempt_id", sa.LargeBinary(), nullable=True),
        sa.Column("prompt_tokens", INT, nullable=False),
        sa.Column("completion_tokens", INT, nullable=False),
        sa.Column("cost_uusd", INT, nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_jobs_id_partial",
        "jobs",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index("ix_jobs_owner_id_id", "jobs", ["owner_id", "id"], unique=False)
    op.create_table(
        "receipts",
        sa.Column("job_id", sa.LargeBinary(), nullable=False),
        sa.Column("keyid", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "signing_keys",
        sa.Column("keyid", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("holder_kind", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("valid_from_ms", INT, nullable=False),
        sa.Column("revoked_ms", INT, nullable=True),
        sa.PrimaryKeyConstraint("keyid"),
    )
    op.create_index("ix_signing_keys_holder", "signing_keys", ["holder"], unique=False)
    op.create_table(
        "transfers",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("debit_id", sa.LargeBinary(), nullable=False),
        sa.Column("credit_id", sa.LargeBinary(), nullable=False),
        sa.Column("amount_uusd", INT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job_id", sa.LargeBinary(), nullable=True),
        sa.Column("created_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_transfers_credit_id_id", "transfers", ["credit_id", "id"], unique=False)
    op.create_index("ix_transfers_debit_id_id", "transfers", ["debit_id", "id"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("username_folded", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("email_folded", sa.Text(), nullable=True),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_ms", INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_users_email_folded", "users", ["email_folded"], unique=True)
    op.create_index("uq_users_username_folded", "users", ["username_folded"], unique=True)
