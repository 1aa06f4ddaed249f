"""what instructors purge"""

import sqlalchemy as sa
from alembic import op

from nbexchange.columns import Moment, Name

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NEW = (
    ("erase_at", Moment()),
    ("restored_at", Moment()),
    ("restored_by", Name(length=200)),
)


def upgrade() -> None:
    for name, kind in NEW:
        op.add_column("purge", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name, _ in NEW:
        op.drop_column("purge", name)
