"""Files: their parts and contents, who has and who keeps them, what they count, and places that are to be erased."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.create_table(
        "file_contents",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("place", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "file_keeps",
        sa.Column("file_id", sa.LargeBinary(), nullable=False),
        sa.Column("keeper", sa.Text(), nullable=False),
        sa.Column("since_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "keeper"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_file_keeps_keeper", "file_keeps", ["keeper"], unique=False)
    op.create_table(
        "file_parts",
        sa.Column("place", sa.LargeBinary(), nullable=False),
        sa.Column("start", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("object_id", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("place", "start"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "file_trash",
        sa.Column("place", sa.LargeBinary(), nullable=False),
        sa.Column("since_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("erased_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("place"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_file_trash_since_ms", "file_trash", ["since_ms"], unique=False)
    op.create_table(
        "file_usage",
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("bytes_counted", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("files_counted", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("owner_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "files",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("place", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("stored", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("parts", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("expected", sa.LargeBinary(), nullable=True),
        sa.Column("created_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("expires_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_files_expires_ms_partial",
        "files",
        ["expires_ms"],
        unique=False,
        sqlite_where=sa.text("expires_ms IS NOT NULL"),
        postgresql_where=sa.text("expires_ms IS NOT NULL"),
    )
    op.create_index("ix_files_owner_id_id", "files", ["owner_id", "id"], unique=False)
    op.create_index("ix_files_sha256", "files", ["sha256"], unique=False)
