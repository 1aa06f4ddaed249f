"""a secret of the installation"""

import secrets

import sqlalchemy as sa
from alembic import op

from nbexchange.columns import Key, Name

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    secret = op.create_table(
        "secret",
        sa.Column("id", Key, nullable=False),
        sa.Column("value", Name(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secret")),
    )
    # If an earlier run was interrupted, the row may exist already.
    op.execute(secret.delete())
    op.execute(secret.insert().values(value=secrets.token_hex(32)))


def downgrade() -> None:
    op.drop_table("secret")
