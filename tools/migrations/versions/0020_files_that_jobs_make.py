"""Files that jobs make: who keeps a file and made it remembers which of its makers did."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.add_column("file_keeps", sa.Column("made_by", sa.Text(), nullable=True))
