"""The user's courses, from environment variables that the hub sets when the server starts.

`NBEXCHANGE_COURSES` is a JSON object of course ids and roles. Pages use it, and it gives the course
if the user names none. It grants no rights: the service decides each time what a user may do.

Each course that the user teaches has a folder `courses/<course id>` with all of nbgrader's files
for the course. It is created if it is missing, and never changed afterwards.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbexchange.plugin import files
from nbexchange.plugin.answers import is_visible_name

_CONFIG = """\
# nbgrader's commands in this folder, and a formgrader for it, use this course.
import os
c = get_config()
c.CourseDirectory.course_id = {course_id!r}
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
c.CourseDirectory.db_url = "sqlite:///" + os.path.join(c.CourseDirectory.root, "gradebook.db")
"""


def courses_from_env() -> Mapping[str, str] | None:
    """course id -> role; None if no hub sets the variable."""
    return _texts_from_env("NBEXCHANGE_COURSES")


def graders_from_env() -> Mapping[str, str]:
    """course id -> address of formgrader in the shared account of the course's instructors."""
    graders = _texts_from_env("NBEXCHANGE_GRADERS") or {}
    return {
        course_id: address
        for course_id, address in graders.items()
        if address.startswith(("/", "http://", "https://"))
    }


def _texts_from_env(variable: str) -> Mapping[str, str] | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(
        isinstance(value, str) for value in content.values()
    ):
        logging.getLogger(__name__).warning(
            "%s is not a JSON object of course ids and texts; it is ignored.", variable
        )
        return None
    return {course_id: value for course_id, value in content.items() if is_visible_name(course_id)}


def taught() -> list[str]:
    """The courses that the user teaches."""
    return sorted(
        course_id
        for course_id, role in (courses_from_env() or {}).items()
        if role.lower() == "instructor" and can_be_shown(course_id)
    )


def can_be_shown(course_id: str) -> bool:
    """Whether formgrader's pages can name it: they write it into their scripts unescaped."""
    return not set(course_id) & set('"<>')


def only_one() -> str:
    """The course to use if the user names none; "" if the user has several or none."""
    courses = courses_from_env()
    if courses is None:
        return os.environ.get("NBEXCHANGE_COURSE_ID", "")
    return next(iter(courses)) if len(courses) == 1 else ""


def folder_of(course_id: str, root: Path) -> Path:
    """The folder with an instructor's files of the course."""
    return root / "courses" / course_id


def prepare(course_id: str, root: Path) -> Path:
    """Create that folder for nbgrader. Existing files stay unchanged."""
    folder = folder_of(course_id, root)
    if not folder.is_dir():
        (folder / "source").mkdir(parents=True, exist_ok=True)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        files.write_whole(config, _CONFIG.format(course_id=course_id).encode())
    return folder
