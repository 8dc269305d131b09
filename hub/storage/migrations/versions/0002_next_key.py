"""A node's next key: announced by the node, current from the first session that it opens."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("next_public_key", sa.String(length=64), nullable=True))
    op.add_column("nodes", sa.Column("next_key_expires_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("nodes", "next_key_expires_at")
    op.drop_column("nodes", "next_public_key")
