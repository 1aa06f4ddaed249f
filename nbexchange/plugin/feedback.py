"""release_feedback and fetch_feedback: the instructor's feedback on submissions."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbgrader.exchange import abc
from traitlets import Integer

from nbexchange.plugin import files
from nbexchange.plugin.answers import FetchedFeedback, ListedSubmission, is_folder_name
from nbexchange.plugin.client import ServiceError
from nbexchange.plugin.exchange import Exchange, is_wanted, sentence
from nbexchange.plugin.submissions import RECEIPT, TIMESTAMP

_PLACEHOLDER = "\0"  # neither a student nor a folder can have this name


@dataclass(frozen=True)
class _Page:
    """One HTML file of feedback."""

    student: str
    notebook_id: str
    path: Path

    @property
    def timestamp(self) -> str:
        """The submission's timestamp, from the file beside the page; "" if there is none."""
        try:
            return self.path.with_name(TIMESTAMP).read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""


class ExchangeReleaseFeedback(Exchange, abc.ExchangeReleaseFeedback):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeReleaseFeedback.*`"""

    release_workers = Integer(
        4, min=1, max=16, help="How many feedback pages are sent at a time."
    ).tag(config=True)

    def init_src(self) -> None:
        excluded = set(filter(None, self.coursedir.student_id_exclude.split(",")))
        self._pages = [
            page
            for student in sorted(set(self._students()) - excluded)
            if is_wanted(student, self.coursedir.student_id)
            for page in self._pages_of(student)
        ]

    def _students(self) -> Iterator[str]:
        """Students with feedback on this assignment, wherever directory_structure puts the name.

        This splits the path at the name. nbgrader uses a regular expression, which finds no student
        if a name contains a special character.
        """
        before, _, after = self._folder(_PLACEHOLDER).partition(_PLACEHOLDER)
        above, prefix = os.path.split(before)
        suffix = after.split(os.sep, 1)[0]
        for path in Path(above).glob("*"):
            student = path.name.removeprefix(prefix).removesuffix(suffix)
            is_one = path.name == f"{prefix}{student}{suffix}"
            if is_one and Path(self._folder(student)).is_dir():
                yield student

    def _folder(self, student: str) -> str:
        step = self.coursedir.feedback_directory
        return str(self.coursedir.format_path(step, student, self.coursedir.assignment_id))

    def _pages_of(self, student: str) -> list[_Page]:
        paths = sorted(Path(self._folder(student)).glob("*.html"))
        return [_Page(student, path.stem, path) for path in paths if path.name[0] != "."]

    def init_dest(self) -> None:
        self.check_course()

    def copy_files(self) -> None:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        failures = {}
        for page, address in self.in_order(self._send, self._pages, self.release_workers):
            name = f"{course_id}/{assignment_id}/{page.notebook_id}"
            try:
                self.log.info(
                    "Releasing feedback for student '%s' on assignment '%s' (%s)",
                    page.student,
                    name,
                    page.timestamp,
                )
                self.log.info("Feedback released to: %s", address())
            except Exception as error:  # noqa: BLE001 - it must not stop the others
                failures[f"{page.student} {page.notebook_id}"] = sentence(error)
                self.log.error(
                    "Could not release feedback for student '%s' on assignment '%s': %s",
                    page.student,
                    name,
                    sentence(error),
                )
        self.fail_with("notebooks' feedback could not be released", failures, len(self._pages))

    def _send(self, page: _Page) -> str:
        """Release one page and return its place in the exchange, for display."""
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        html = page.path.read_bytes()
        receipt = self.client.release_feedback(
            course_id, assignment_id, page.notebook_id, html, self._submission_of(page)
        )
        name = f"{receipt.submission_id}/{page.notebook_id}.html"
        return self.display_path(course_id, "feedback", name)

    def _submission_of(self, page: _Page) -> Mapping[str, str | int]:
        """The submission that a page is about, from the receipt that collect wrote.

        A folder from elsewhere has no receipt, or one that a student put there. Then student and
        time identify the submission, as in nbgrader's own exchange.
        """
        expected = {
            "course_id": self.coursedir.course_id,
            "assignment_id": self.coursedir.assignment_id,
            "student": page.student,
        }
        if page.timestamp:
            expected["timestamp"] = page.timestamp
        submission_id = _submission_id(page.path.with_name(RECEIPT), expected)
        if submission_id is not None:
            return {"submission_id": submission_id, "student": page.student}
        if page.timestamp:
            return {"student": page.student, "timestamp": page.timestamp}
        raise ServiceError(
            f"the submission is unknown, because {page.path.parent} contains neither {RECEIPT} nor "
            f"{TIMESTAMP}. Move the student's folder out of "
            f"{self.coursedir.submitted_directory}, collect again, and run autograde and "
            "generate_feedback with --force"
        )


def _submission_id(path: Path, expected: Mapping[str, str]) -> int | str | None:
    try:
        receipt: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(receipt, dict) or any(receipt.get(key) != expected[key] for key in expected):
        return None
    submission_id = receipt.get("submission_id")
    return submission_id if isinstance(submission_id, int | str) else None


class ExchangeFetchFeedback(Exchange, abc.ExchangeFetchFeedback):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeFetchFeedback.*`"""

    def init_src(self) -> None:
        course_id = self.check_course()
        self.strip_slash()
        _, own = self.client.assignments(course_id)
        self._submissions = sorted(
            (
                submission
                for submission in own
                if is_wanted(submission.assignment_id, self.coursedir.assignment_id)
            ),
            key=lambda submission: (submission.assignment_id, submission.timestamp),
        )
        self._feedback = {name: self._fetch(course_id, name) for name in self._assignment_ids()}
        for submission in self._submissions:
            self._log_available(submission)

    def _assignment_ids(self) -> list[str]:
        """Usually the assignment given by the user; formgrader may pass "*"."""
        named: str = self.coursedir.assignment_id
        submitted = {submission.assignment_id for submission in self._submissions}
        return sorted(submitted if named in ("", "*") else {named, *submitted})

    def _fetch(self, course_id: str, assignment_id: str) -> list[FetchedFeedback]:
        feedback = self.client.fetch_feedback(course_id, assignment_id)
        return sorted(
            feedback, key=lambda feedback: (feedback.submission_timestamp, feedback.notebook_id)
        )

    def _log_available(self, submission: ListedSubmission) -> None:
        available = {
            feedback.notebook_id
            for feedback in self._feedback[submission.assignment_id]
            if feedback.submission_timestamp == submission.timestamp
        }
        for notebook in submission.notebooks:
            name = f"{submission.course_id}/{submission.assignment_id}/{notebook.notebook_id}"
            if notebook.notebook_id in available:
                self.log.info("Found feedback for '%s' submitted at %s", name, submission.timestamp)
            else:
                self.log.warning(
                    "Could not find feedback for '%s' submitted at %s", name, submission.timestamp
                )

    def init_dest(self) -> None:
        self._folders = {
            assignment_id: Path(
                self.folder_of_copy(self.coursedir.course_id, assignment_id), files.FEEDBACK
            ).absolute()
            for assignment_id in self._feedback
        }

    def copy_files(self) -> None:
        failures: dict[str, str] = {}
        for assignment_id, pages in self._feedback.items():
            folder = self._folders[assignment_id]
            self.log.info("Source: %s", self.display_path(self.coursedir.course_id, "feedback"))
            self.log.info("Destination: %s", folder)
            for feedback in pages:
                self._write(folder, feedback, failures)
        count = sum(map(len, self._feedback.values()))
        self.fail_with("notebooks' feedback could not be written", failures, count)

    def _write(self, folder: Path, feedback: FetchedFeedback, failures: dict[str, str]) -> None:
        path = folder / feedback.submission_timestamp / f"{feedback.notebook_id}.html"
        try:
            if not is_folder_name(feedback.notebook_id):
                raise ServiceError("the name cannot be the name of a file")
            if hashlib.sha256(feedback.content).hexdigest() != feedback.sha256:
                raise ServiceError("it arrived corrupt; try again")
            files.write_whole(path, feedback.content)
        except Exception as error:  # noqa: BLE001 - it must not stop the others
            failures[repr(feedback.notebook_id)] = sentence(error)
        else:
            self.log.info("Fetched feedback: %s", path)
