"""histories by index"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NEW = {
    "ix_event_assignment_pk_user_pk_action_id": ["assignment_pk", "user_pk", "action", "id"],
    "ix_event_assignment_pk_action_id": ["assignment_pk", "action", "id"],
    "ix_event_course_pk_action_id": ["course_pk", "action", "id"],
    "ix_event_user_pk_id": ["user_pk", "id"],
    "ix_event_token_user_pk_action_id": ["token", "user_pk", "action", "id"],
}
OLD = {
    "ix_event_assignment_pk_user_pk_action": ["assignment_pk", "user_pk", "action"],
    "ix_event_course_pk": ["course_pk"],
    "ix_event_user_pk": ["user_pk"],
}
"""Each of these indexes is a prefix of a new one."""


def upgrade() -> None:
    for name, columns in NEW.items():
        op.create_index(name, "event", columns)
    for name in OLD:
        op.drop_index(name, table_name="event")


def downgrade() -> None:
    for name, columns in OLD.items():
        op.create_index(name, "event", columns)
    for name in NEW:
        op.drop_index(name, table_name="event")
