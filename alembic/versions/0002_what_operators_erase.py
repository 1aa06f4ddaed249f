"""what operators erase"""

import sqlalchemy as sa
from alembic import op

from nbexchange.columns import Key, Moment, Name

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "purge",
        sa.Column("id", Key, nullable=False),
        sa.Column("code", Name(length=32), nullable=False),
        sa.Column("org_id", sa.Integer(), nullable=False),
        sa.Column("course_id", Name(length=200), nullable=True),
        sa.Column("assignment_id", Name(length=200), nullable=True),
        sa.Column("student_id", Name(length=200), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("fingerprint", Name(length=64), nullable=False),
        sa.Column("requested_at", Moment(), nullable=False),
        sa.Column("requested_by", Name(length=200), nullable=False),
        sa.Column("erased_at", Moment(), nullable=True),
        sa.Column("erased_by", Name(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purge")),
        sa.UniqueConstraint("code", name=op.f("uq_purge_code")),
    )


def downgrade() -> None:
    op.drop_table("purge")
