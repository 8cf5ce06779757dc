"""What hosts speak: the shape in which one that polls or is pushed is given its jobs; NULL is the published Infrintia
API's."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.add_column("hosts", sa.Column("speaks", sa.Text(), nullable=True))
