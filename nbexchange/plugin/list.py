"""list: releases, submissions, and whether there is feedback."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from nbgrader.exchange import abc

from nbexchange.plugin import files
from nbexchange.plugin.answers import (
    ListedSubmission,
    Notebook,
    Released,
    is_folder_name,
    is_visible_name,
)
from nbexchange.plugin.exchange import Exchange, is_glob, is_wanted, sentence

_Info = dict[str, Any]
"""An item for nbgrader's pages. They change it, so each call creates new ones."""


class ExchangeList(Exchange, abc.ExchangeList):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeList.*`; also implements `remove`, which takes a release back."""

    def init_src(self) -> None:
        self._courses = self.courses_of_student() if self.coursedir.student_id else None

    def init_dest(self) -> None:
        pass

    def copy_files(self) -> None:
        pass

    def list_files(self) -> list[_Info]:
        if self.inbound or self.cached:
            groups = self._submitted_groups("submitted")
            self._log_lines("Submitted assignments:", self._lines(groups, _line_with_feedback))
            return groups
        releases = self._released()
        released = [self._released_info(release) for release in releases]
        self._log_lines("Released assignments:", map(_released_line, released))
        self._log_news(releases)
        return released

    def remove_files(self) -> list[_Info]:
        if self.inbound:
            raise self.failed(
                "Submissions are never removed from the exchange service. If one must be erased, "
                "contact your administrator."
            )
        return self._remove_cached() if self.cached else self._remove_released()

    def _remove_released(self) -> list[_Info]:
        self.check_course()
        releases = self._released()
        infos = [self._released_info(release) for release in releases]
        self._log_lines("Removing released assignments:", map(_released_line, infos))
        for release in releases:
            self.client.remove(release.course_id, release.assignment_id)
        return [{**info, "status": "removed"} for info in infos]

    def _remove_cached(self) -> list[_Info]:
        """Remove the local copies only; the submissions stay in the exchange."""
        groups = self._submitted_groups("removed")
        self._log_lines("Removing submitted assignments:", self._lines(groups, _line))
        paths = [info["path"] for group in groups for info in group["submissions"]]
        failures = {}
        for path in paths:
            try:
                shutil.rmtree(path)
            except OSError as error:
                failures[path] = sentence(error)
        self.fail_with("copies could not be removed", failures, len(paths))
        return groups

    def _log_news(self, releases: list[Released]) -> None:
        for release in releases:
            folder = Path(self.local_folder(release.course_id, release.assignment_id)).absolute()
            news = self.news(release, folder)
            if news:
                self.log.info(news)

    def _log_lines(self, title: str, lines: Iterator[str]) -> None:
        self.log.info(title)
        for line in lines:
            self.log.info(line)

    # Selection

    def _course(self) -> str | None:
        """The course to request; None means all of the caller's courses.

        Only "*" counts as a glob: "?" and brackets are more likely part of a course's name.
        """
        course_id: str = self.coursedir.course_id
        return None if course_id == "" or "*" in course_id else course_id

    def _is_listed(self, item: Released | ListedSubmission) -> bool:
        return (
            is_wanted(item.course_id, self.coursedir.course_id)
            and is_wanted(item.assignment_id, self.coursedir.assignment_id)
            and (self._courses is None or item.course_id in self._courses)
            and self._has_a_folder(item)
        )

    def _has_a_folder(self, item: Released | ListedSubmission) -> bool:
        usable = is_visible_name(item.course_id) and is_visible_name(item.assignment_id)
        if not usable:
            # It could not be fetched, and checking for a copy would look outside of our folders.
            self.log.warning("Leaving out %r: a folder cannot have this name", item.assignment_id)
        return usable

    def _released(self) -> list[Released]:
        released, _ = self.client.assignments(self._course())
        listed = filter(self._is_listed, released)
        return sorted(listed, key=lambda release: (release.course_id, release.assignment_id))

    def _submissions(self) -> list[ListedSubmission]:
        if self.inbound:
            submissions = [
                submission
                for course_id in self._inbound_courses()
                for submission in self._inbound(course_id)
            ]
        else:
            _, submissions = self.client.assignments(self._course())
        return sorted(
            (
                submission
                for submission in submissions
                if self._is_listed(submission) and self._is_by_student(submission)
            ),
            key=lambda submission: (
                submission.course_id,
                submission.student,
                submission.assignment_id,
                submission.timestamp,
            ),
        )

    def _is_by_student(self, submission: ListedSubmission) -> bool:
        return is_wanted(submission.student, self.coursedir.student_id)

    def _inbound_courses(self) -> list[str]:
        course_id = self._course()
        if course_id is not None:
            return [course_id]
        released, own = self.client.assignments(None)
        items: list[Released | ListedSubmission] = [*released, *own]
        return sorted({item.course_id for item in items if self._is_listed(item)})

    def _inbound(self, course_id: str) -> list[ListedSubmission]:
        student: str = self.coursedir.student_id
        return self.client.inbound(
            course_id, student=None if student == "" or is_glob(student) else student
        )

    # Released

    def _released_info(self, release: Released) -> _Info:
        folder = self.local_folder(release.course_id, release.assignment_id)
        if self.is_copy(release, Path(folder)):
            status, path = "fetched", str(Path(folder).absolute())
            notebooks = _local_notebooks(Path(path))
        else:
            status, path = (
                "released",
                self.display_path(release.course_id, "outbound", release.assignment_id),
            )
            notebooks = [
                {"notebook_id": nb.notebook_id, "path": f"{path}/{nb.notebook_id}.ipynb"}
                for nb in release.notebooks
            ]
        if not notebooks:
            self.log.warning("No notebooks found in %s", path)
        return {
            "course_id": release.course_id,
            "assignment_id": release.assignment_id,
            "status": status,
            "path": path,
            "notebooks": notebooks,
        }

    # Submitted

    def _submitted_groups(self, status: str) -> list[_Info]:
        """By course, student and assignment, with the submissions oldest first."""
        infos = [self._submission_info(submission, status) for submission in self._submissions()]
        if status == "removed":
            infos = [info for info in infos if info["path"]]
        return [
            {
                "course_id": course_id,
                "student_id": student_id,
                "assignment_id": assignment_id,
                "status": status,
                "submissions": list(group),
            }
            for (course_id, student_id, assignment_id), group in groupby(infos, key=_group)
        ]

    def _submission_info(self, submission: ListedSubmission, status: str) -> _Info:
        path = self._path(submission)
        folder = self.folder_of_copy(submission.course_id, submission.assignment_id)
        # nbgrader's pages and its tests see "./ps1/feedback/...": Path would drop the dot.
        feedback = os.path.join(folder, files.FEEDBACK, submission.timestamp)  # noqa: PTH118
        notebooks = [_notebook_info(nb, path, feedback) for nb in submission.notebooks]
        # An extra notebook never gets feedback, and must not hide the feedback on the others.
        commented = [nb for nb in notebooks if nb["has_exchange_feedback"]]
        has_local = any(nb["has_local_feedback"] for nb in notebooks) and all(
            nb["has_local_feedback"] for nb in commented
        )
        return {
            "course_id": submission.course_id,
            "student_id": submission.student,
            "assignment_id": submission.assignment_id,
            "timestamp": submission.timestamp,
            **({"random_string": f"+{submission.submission_id}"} if self.inbound else {}),
            "status": status,
            "path": path,
            "notebooks": notebooks,
            "has_local_feedback": has_local,
            "has_exchange_feedback": bool(commented),
            "feedback_updated": any(nb["feedback_updated"] for nb in notebooks),
            "local_feedback_path": str(Path(feedback).absolute()) if has_local else None,
        }

    def _path(self, submission: ListedSubmission) -> str:
        if self.inbound:
            name = (
                f"{submission.student}+{submission.assignment_id}+{submission.timestamp}"
                f"+{submission.submission_id}"
            )
            return self.display_path(submission.course_id, "inbound", name)
        if not is_folder_name(submission.student):
            return ""
        copy = self.cached_copy(
            submission.course_id, submission.student, submission.assignment_id, submission.timestamp
        )
        return str(copy) if files.is_folder(copy) else ""

    def _lines(self, groups: list[_Info], line: Any) -> Iterator[str]:
        return (line(info) for group in groups for info in group["submissions"])


def _group(info: _Info) -> tuple[str, str, str]:
    return info["course_id"], info["student_id"], info["assignment_id"]


def _released_line(info: _Info) -> str:
    line = f"{info['course_id']} {info['assignment_id']}"
    return f"{line} (already downloaded)" if info["status"] == "fetched" else line


def _line(info: _Info) -> str:
    return "{course_id} {student_id} {assignment_id} {timestamp}".format_map(info)


def _line_with_feedback(info: _Info) -> str:
    if info["has_local_feedback"] and not info["feedback_updated"]:
        feedback = "feedback already fetched"
    elif info["has_exchange_feedback"]:
        feedback = "feedback ready to be fetched"
    else:
        feedback = "no feedback available"
    return f"{_line(info)} ({feedback})"


def _local_notebooks(folder: Path) -> list[_Info]:
    """The student's current notebooks at the top level of the folder."""
    notebooks = sorted(folder.glob("*.ipynb"))
    shown = [path for path in notebooks if not path.name.startswith(".")]
    return [{"notebook_id": path.stem, "path": str(path)} for path in shown]


def _notebook_info(notebook: Notebook, path: str, feedback: str) -> _Info:
    local = os.path.join(feedback, f"{notebook.notebook_id}.html")  # noqa: PTH118 - see above
    has_local = files.is_file(local)
    return {
        "notebook_id": notebook.notebook_id,
        "path": f"{path}/{notebook.notebook_id}.ipynb" if path else "",
        "has_local_feedback": has_local,
        "has_exchange_feedback": notebook.has_feedback,
        "local_feedback_path": local if has_local else None,
        "feedback_updated": has_local and _is_updated(Path(local), notebook.feedback_sha256),
    }


def _is_updated(local: Path, released: str | None) -> bool:
    if released is None:
        return False
    try:
        with local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() != released
    except OSError:  # fetching it again replaces a file that cannot be read
        return True
