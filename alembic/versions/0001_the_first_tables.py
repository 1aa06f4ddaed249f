"""the first tables"""

import sqlalchemy as sa
from alembic import op

from nbexchange.columns import Key, Moment, Name

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "course",
        sa.Column("id", Key, nullable=False),
        sa.Column("org_id", sa.Integer(), nullable=False),
        sa.Column("course_id", Name(length=200), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_course")),
        sa.UniqueConstraint("org_id", "course_id", name=op.f("uq_course_org_id_course_id")),
    )
    op.create_table(
        "user",
        sa.Column("id", Key, nullable=False),
        sa.Column("org_id", sa.Integer(), nullable=False),
        sa.Column("name", Name(length=200), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("lms_user_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("org_id", "name", name=op.f("uq_user_org_id_name")),
    )
    op.create_table(
        "assignment",
        sa.Column("id", Key, nullable=False),
        sa.Column("course_pk", Key, nullable=False),
        sa.Column("assignment_id", Name(length=200), nullable=False),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["course_pk"], ["course.id"], name=op.f("fk_assignment_course_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignment")),
        sa.UniqueConstraint(
            "course_pk", "assignment_id", name=op.f("uq_assignment_course_pk_assignment_id")
        ),
    )
    op.create_table(
        "subscription",
        sa.Column("id", Key, nullable=False),
        sa.Column("course_pk", Key, nullable=False),
        sa.Column("user_pk", Key, nullable=False),
        sa.Column("role", Name(length=20), nullable=False),
        sa.Column("last_seen", Moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["course_pk"], ["course.id"], name=op.f("fk_subscription_course_pk")
        ),
        sa.ForeignKeyConstraint(["user_pk"], ["user.id"], name=op.f("fk_subscription_user_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription")),
        sa.UniqueConstraint("course_pk", "user_pk", name=op.f("uq_subscription_course_pk_user_pk")),
    )
    op.create_index(op.f("ix_subscription_user_pk"), "subscription", ["user_pk"], unique=False)

    op.create_table(
        "event",
        sa.Column("id", Key, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("action", Name(length=20), nullable=False),
        sa.Column("course_pk", Key, nullable=False),
        sa.Column("user_pk", Key, nullable=False),
        sa.Column("assignment_pk", Key, nullable=True),
        sa.Column("token", Name(length=32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["assignment_pk"], ["assignment.id"], name=op.f("fk_event_assignment_pk")
        ),
        sa.ForeignKeyConstraint(["course_pk"], ["course.id"], name=op.f("fk_event_course_pk")),
        sa.ForeignKeyConstraint(["user_pk"], ["user.id"], name=op.f("fk_event_user_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index(
        "ix_event_assignment_pk_user_pk_action",
        "event",
        ["assignment_pk", "user_pk", "action"],
        unique=False,
    )
    op.create_index(op.f("ix_event_course_pk"), "event", ["course_pk"], unique=False)
    op.create_index(op.f("ix_event_user_pk"), "event", ["user_pk"], unique=False)

    op.create_table(
        "release",
        sa.Column("token", Name(length=32), nullable=False),
        sa.Column("assignment_pk", Key, nullable=False),
        sa.Column("user_pk", Key, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("notebooks", sa.JSON(), nullable=False),
        sa.Column("id", Key, nullable=False),
        sa.Column("key", Name(length=64), nullable=False),
        sa.Column("sha256", Name(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", Moment(), nullable=False),
        sa.Column("idempotency_key", Name(length=255), nullable=True),
        sa.ForeignKeyConstraint(
            ["assignment_pk"], ["assignment.id"], name=op.f("fk_release_assignment_pk")
        ),
        sa.ForeignKeyConstraint(["user_pk"], ["user.id"], name=op.f("fk_release_user_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release")),
        sa.UniqueConstraint(
            "assignment_pk", "version", name=op.f("uq_release_assignment_pk_version")
        ),
        sa.UniqueConstraint("key", name=op.f("uq_release_key")),
        sa.UniqueConstraint("token", name=op.f("uq_release_token")),
        sa.UniqueConstraint(
            "user_pk", "idempotency_key", name=op.f("uq_release_user_pk_idempotency_key")
        ),
    )
    op.create_table(
        "submission",
        sa.Column("token", Name(length=32), nullable=False),
        sa.Column("assignment_pk", Key, nullable=False),
        sa.Column("user_pk", Key, nullable=False),
        sa.Column("release_pk", Key, nullable=False),
        sa.Column("arrived_at", Moment(), nullable=False),
        sa.Column("stored_at", Moment(), nullable=False),
        sa.Column("client_timestamp", Name(length=100), nullable=True),
        sa.Column("notebooks", sa.JSON(), nullable=False),
        sa.Column("id", Key, nullable=False),
        sa.Column("key", Name(length=64), nullable=False),
        sa.Column("sha256", Name(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", Moment(), nullable=False),
        sa.Column("idempotency_key", Name(length=255), nullable=True),
        sa.ForeignKeyConstraint(
            ["assignment_pk"], ["assignment.id"], name=op.f("fk_submission_assignment_pk")
        ),
        sa.ForeignKeyConstraint(
            ["release_pk"], ["release.id"], name=op.f("fk_submission_release_pk")
        ),
        sa.ForeignKeyConstraint(["user_pk"], ["user.id"], name=op.f("fk_submission_user_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submission")),
        sa.UniqueConstraint(
            "assignment_pk",
            "user_pk",
            "timestamp",
            name=op.f("uq_submission_assignment_pk_user_pk_timestamp"),
        ),
        sa.UniqueConstraint("key", name=op.f("uq_submission_key")),
        sa.UniqueConstraint("token", name=op.f("uq_submission_token")),
        sa.UniqueConstraint(
            "user_pk", "idempotency_key", name=op.f("uq_submission_user_pk_idempotency_key")
        ),
    )
    op.create_index(op.f("ix_submission_release_pk"), "submission", ["release_pk"], unique=False)
    op.create_index(
        "ix_submission_user_pk_assignment_pk",
        "submission",
        ["user_pk", "assignment_pk"],
        unique=False,
    )

    op.create_table(
        "feedback",
        sa.Column("key", Name(length=64), nullable=False),
        sa.Column("submission_pk", Key, nullable=False),
        sa.Column("user_pk", Key, nullable=False),
        sa.Column("notebook_id", Name(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("checksum", Name(length=255), nullable=True),
        sa.Column("id", Key, nullable=False),
        sa.Column("sha256", Name(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", Moment(), nullable=False),
        sa.Column("idempotency_key", Name(length=255), nullable=True),
        sa.ForeignKeyConstraint(
            ["submission_pk"], ["submission.id"], name=op.f("fk_feedback_submission_pk")
        ),
        sa.ForeignKeyConstraint(["user_pk"], ["user.id"], name=op.f("fk_feedback_user_pk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint(
            "submission_pk",
            "notebook_id",
            "version",
            name=op.f("uq_feedback_submission_pk_notebook_id_version"),
        ),
        sa.UniqueConstraint(
            "user_pk", "idempotency_key", name=op.f("uq_feedback_user_pk_idempotency_key")
        ),
    )
    op.create_index(op.f("ix_feedback_key"), "feedback", ["key"], unique=False)


def downgrade() -> None:

    op.drop_table("feedback")

    op.drop_table("submission")
    op.drop_table("release")

    op.drop_table("event")

    op.drop_table("subscription")
    op.drop_table("assignment")
    op.drop_table("user")
    op.drop_table("course")
