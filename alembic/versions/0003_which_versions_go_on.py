"""which versions go on"""

import sqlalchemy as sa
from alembic import op

from nbexchange.columns import Key, Name

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    compatibility = op.create_table(
        "compatibility",
        sa.Column("id", Key, nullable=False),
        sa.Column("oldest", Name(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compatibility")),
    )
    # If an earlier run was interrupted, the row may exist already.
    op.execute(compatibility.delete())
    op.execute(compatibility.insert().values(oldest=revision))


def downgrade() -> None:
    op.drop_table("compatibility")
