"""submit and collect: send a student's work to the instructor, with a receipt."""

import datetime
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from nbgrader.exchange import abc
from nbgrader.utils import parse_utc
from traitlets import Integer

from nbexchange import archive
from nbexchange.archive import Member
from nbexchange.plugin import files, gradebook, packing
from nbexchange.plugin.answers import ListedSubmission, Released, SubmitReceipt, is_folder_name
from nbexchange.plugin.client import Payload, RequestRefused, ServiceError
from nbexchange.plugin.disks import naming
from nbexchange.plugin.exchange import Exchange, is_glob, is_wanted, sentence
from nbexchange.plugin.jobs import COMPUTING
from nbexchange.plugin.packing import LeftOut, PackingRules, Selection
from nbexchange.text import escaped

RECEIPT = "submission_receipt.json"
"""The file that names the submission in a folder. autograde and generate_feedback copy it with the
other files, so that feedback reaches exactly the submission that was graded."""

TIMESTAMP = "timestamp.txt"
SECRET = "submission_secret.txt"  # noqa: S105 - the name of a file
_RESERVED = {RECEIPT, TIMESTAMP, SECRET}


class ExchangeSubmit(Exchange, abc.ExchangeSubmit):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeSubmit.*`"""

    left_out: Sequence[LeftOut] = ()
    """Files and folders that were not submitted, for the caller; also in the receipt."""

    def init_src(self) -> None:
        name = self.coursedir.assignment_id
        if self.path_includes_course:
            name = Path(self.check_course(), name)
        self.src_path = Path(os.path.abspath(Path(self.assignment_dir, name)))  # noqa: PTH100 - "ps1/../ps1" too
        if "+" in self.src_path.name:
            raise self.failed("Assignment names should not contain the following characters: +")
        self.coursedir.assignment_id = self.src_path.name
        if not self.src_path.is_dir():
            others = self.src_path.parent.glob("*")
            raise self.not_found(
                str(self.src_path), (str(folder) for folder in others if folder.is_dir())
            )

    def init_dest(self) -> None:
        self.check_course()
        self.check_access()
        student_id = self.coursedir.student_id
        if student_id not in ("", "*") and ("*" in student_id or "+" in student_id):
            raise self.failed(f"The student ID should contain no '*' nor '+'; got {student_id}")
        self.remove_abandoned(self.src_path.parent)

    def copy_files(self) -> None:
        released = self._release()
        self._refuse_other_course()
        self.log.info("Source: %s", self.src_path)
        selection = self._select(released)
        self._compare_notebooks(released, selection.members)
        news = self.news(released, self.src_path)
        if news:
            self.log.warning("%s Your work on the older version is submitted anyway.", news)
        with selection.packed(self._marker_files(), self.max_buffer_size) as payload:
            packing.check_notebooks(selection, released.notebook_files)
            self._warn_about_left_out(selection)
            receipt = self.client.submit(
                self.coursedir.course_id, self.coursedir.assignment_id, payload
            )
            name = f"{receipt.student}+{receipt.assignment_id}+{receipt.timestamp}"
            self.log.info(
                "Destination: %s",
                self.display_path(receipt.course_id, "inbound", f"{name}+{receipt.submission_id}"),
            )
            self._keep(payload, receipt)
        self.log.info(
            "Submitted as: %s %s %s", receipt.course_id, receipt.assignment_id, receipt.timestamp
        )

    def _select(self, released: Released) -> Selection:
        rules, notebooks = PackingRules.of(self.coursedir), released.notebook_files
        selection = packing.select(self.src_path, rules, notebooks=notebooks, reserved=_RESERVED)
        packing.check_notebooks(selection, notebooks)
        selection.check_size(
            "Remove files that need not be submitted, or ask your instructor to raise the option "
            "for the whole course."
        )
        return selection

    def _warn_about_left_out(self, selection: Selection) -> None:
        self.left_out = [*selection.left_out, *selection.too_large]
        if self.left_out:
            self.log.warning("%s", packing.warning(self.left_out, RECEIPT))

    def _release(self) -> Released:
        """The release that this submission answers. Also refuses to submit as another student."""
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        released, own = self.client.assignments(course_id)
        self._refuse_to_impersonate(own)
        for release in released:
            if release.assignment_id == assignment_id:
                return release
        raise self.failed(
            f"Assignment not found: {self.display_path(course_id, 'outbound', assignment_id)}"
        )

    def _refuse_to_impersonate(self, own: list[ListedSubmission]) -> None:
        names = {submission.student for submission in own} or {
            os.environ.get("JUPYTERHUB_USER", "")
        }
        if self.coursedir.student_id not in ("", "*", *names):
            raise self.failed(
                f"You cannot submit as {self.coursedir.student_id}: the exchange service takes "
                "your name from your login. Leave out --student."
            )

    def _refuse_other_course(self) -> None:
        course_id = self.course_of_folder(self.src_path)
        if course_id is not None and course_id != self.coursedir.course_id:
            raise self.failed(
                f"Nothing was submitted. The folder {self.src_path.name} was fetched from the "
                f"course {course_id}, and this submission is for {self.coursedir.course_id}. "
                f"Submit it to {course_id}; or rename the folder, fetch the assignment of "
                f"{self.coursedir.course_id}, and submit that."
            )

    def _compare_notebooks(self, released: Released, contents: list[Member]) -> None:
        expected = set(released.notebook_files)
        submitted = {member.name for member in contents if _is_notebook(member)}
        if expected == submitted:
            return
        notebooks = "\n\t".join(
            f"{name}: {'FOUND' if name in submitted else 'MISSING'}" for name in sorted(expected)
        )
        sent = "\n\t".join(
            f"{name}: {'OK' if name in expected else 'EXTRA'}" for name in sorted(submitted)
        )
        diff = f"Expected:\n\t{notebooks}\nSubmitted:\n\t{sent}"
        # Work on an older release counts, even if the newer one names its notebooks differently.
        is_older = bool(submitted) and self.news(released, self.src_path) is not None
        if expected.isdisjoint(submitted) and expected and not is_older:
            raise self.failed(
                f"Assignment {self.coursedir.assignment_id} not submitted. The folder has none of "
                "the release's notebooks. If you renamed one, give it its name back. If they are "
                f"gone, fetch the assignment again: your files stay as they are.\n{diff}"
            )
        if self.strict and expected - submitted:
            raise self.failed(
                f"Assignment {self.coursedir.assignment_id} not submitted. "
                f"There are missing notebooks for the submission:\n{diff}"
            )
        self.log.warning(
            "Possible missing notebooks and/or extra notebooks submitted for assignment %s:\n%s",
            self.coursedir.assignment_id,
            diff,
        )

    def _marker_files(self) -> list[Member]:
        """nbgrader's marker files, which replace the student's files with these names.

        This plugin does not use the secret. With it, nbgrader's own exchange can give feedback on
        this submission if a course goes back to it.
        """
        return [
            Member(TIMESTAMP, self.timestamp.encode()),
            Member(SECRET, secrets.token_hex(64).encode()),
        ]

    def _keep(self, payload: Payload, receipt: SubmitReceipt) -> None:
        """Keep a local copy with the receipt. The work is submitted, even if this fails."""
        names = (receipt.course_id, receipt.student)
        copy = self.cached_copy(
            receipt.course_id, receipt.student, receipt.assignment_id, receipt.timestamp
        )
        try:
            if not all(map(is_folder_name, names)):
                raise ServiceError(f"{receipt.student!r} cannot be part of the name of a folder")
            copy.parent.mkdir(parents=True, exist_ok=True)
            payload.file.seek(0)
            text = _receipt(receipt, self.left_out)
            marks = {TIMESTAMP: receipt.timestamp.encode(), RECEIPT: text.encode()}
            with naming(copy), COMPUTING:
                archive.unpack(payload.file, copy, PackingRules.of(self.coursedir).limits, marks)
        except Exception as error:  # noqa: BLE001 - the work is submitted
            self.log.warning(
                "Your work is submitted, but no copy of it is kept here: %s", sentence(error)
            )


class ExchangeCollect(Exchange, abc.ExchangeCollect):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeCollect.*`; `check_owner` has no effect, because files here have no owner."""

    collect_workers = Integer(
        4, min=1, max=16, help="How many submissions are fetched at a time."
    ).tag(config=True)

    def init_src(self) -> None:
        self.check_course()
        due = self._duedates() if self.before_duedate else gradebook.Duedates(None)
        submissions = self._submissions(latest=due.usual is None)
        by_student: dict[str, list[ListedSubmission]] = {}
        for submission in sorted(
            submissions, key=lambda submission: submission.timestamp, reverse=True
        ):
            by_student.setdefault(submission.student, []).append(submission)
        self._chosen = [
            _best_submission(submissions_of_student, due.of(student))
            for student, submissions_of_student in sorted(by_student.items())
        ]

    def _duedates(self) -> gradebook.Duedates:
        try:
            return gradebook.duedates(self.coursedir)
        except Exception as error:  # noqa: BLE001 - SQLAlchemy's and alembic's; see Exchange.start
            kind = type(error).__name__
        raise self.failed(
            f"The due date of {self.coursedir.assignment_id} cannot be read from the gradebook "
            f"({kind}). Repair the gradebook, or collect without --before-duedate."
        )

    def _submissions(self, *, latest: bool) -> list[ListedSubmission]:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        student = self.coursedir.student_id
        only_student = None if student == "" or is_glob(student) else student
        try:
            submissions = self.client.inbound(course_id, assignment_id, only_student, latest=latest)
        except RequestRefused as refusal:
            if refusal.status != 404:
                raise
            self.client.assignments(course_id)  # raises if the course does not exist
            return []
        return [
            submission
            for submission in submissions
            if submission.assignment_id == assignment_id and is_wanted(submission.student, student)
        ]

    def init_dest(self) -> None:
        students = (
            submission.student for submission in self._chosen if is_folder_name(submission.student)
        )
        self.remove_abandoned(*{self._folder(student).parent for student in students})

    def _folder(self, student: str) -> Path:
        step, assignment_id = self.coursedir.submitted_directory, self.coursedir.assignment_id
        return Path(self.coursedir.format_path(step, student, assignment_id))

    def copy_files(self) -> None:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        if not self._chosen:
            self.log.warning(
                "No submissions of '%s' for course '%s' to collect", assignment_id, course_id
            )
            return
        self.log.info(
            "Processing %s submissions of '%s' for course '%s'",
            len(self._chosen),
            assignment_id,
            course_id,
        )
        failures = self._collect_all()
        self._add_to_gradebook(
            [submission for submission in self._chosen if submission.student not in failures]
        )
        self.fail_with("submissions could not be collected", failures, len(self._chosen))

    def _collect_all(self) -> dict[str, str]:
        """The reason of each failure, by student. A failure does not stop the others."""
        failures = {}
        for submission, outcome in self.in_order(self._collect, self._chosen, self.collect_workers):
            try:
                self.log.info("%s: %s %s", outcome(), submission.student, submission.assignment_id)
            except Exception as error:  # noqa: BLE001 - it must not stop the others
                reason = sentence(error)
                failures[submission.student] = reason
                self.log.error(
                    "Could not collect %s %s: %s",
                    submission.student,
                    submission.assignment_id,
                    reason,
                )
        return failures

    def _collect(self, submission: ListedSubmission) -> str:
        """Download one submission if needed. Returns the result in nbgrader's words."""
        if not is_folder_name(submission.student):
            raise ServiceError(f"{submission.student!r} cannot be the name of a folder")
        folder = self._folder(submission.student)
        is_there = folder.is_dir()
        if is_there and not self._is_better(submission, folder):
            if self.update:
                return "No newer submission to collect"
            return "Submission already exists, use --update to update"
        self._download(submission, folder)
        return "Updating submission" if is_there else "Collecting submission"

    def _is_better(self, submission: ListedSubmission, folder: Path) -> bool:
        existing, new = self._existing_timestamp(folder), parse_utc(submission.timestamp)
        if self.update and (existing is None or new > existing):
            return True
        return bool(self.before_duedate and existing != new)

    def _existing_timestamp(self, folder: Path) -> datetime.datetime | None:
        try:
            timestamp: datetime.datetime | None = self.coursedir.get_existing_timestamp(str(folder))
        except (AttributeError, ValueError, OverflowError):
            # nbgrader fails while it formats its message about an invalid timestamp.
            self.log.warning("Invalid timestamp string: %s", folder / TIMESTAMP)
            return None
        return timestamp

    def _download(self, submission: ListedSubmission, folder: Path) -> None:
        rules = PackingRules.of(self.coursedir)
        with (
            self.client.collect(submission) as file,
            files.unpacked(file, folder, rules.limits) as new,
        ):
            selection = packing.select(new, rules, reserved=_RESERVED)
            selection.check_size(
                "If this size is acceptable, set c.CourseDirectory.max_dir_size = "
                f"{packing.kilobytes(selection.size)} or more in nbgrader_config.py, and collect "
                "again."
            )
            if selection.too_large:
                lines = "\n\t".join(packing.listed(selection.too_large))
                self.log.warning(
                    "Ignoring files too large in the submission of %s:\n\t%s\n"
                    "To collect them, raise c.CourseDirectory.max_file_size in nbgrader_config.py, "
                    "remove %s, and collect again.",
                    submission.student,
                    lines,
                    folder,
                )
            files.prune(new, rules.leave_out)
            files.put(new, TIMESTAMP, submission.timestamp)
            files.put(new, RECEIPT, _receipt(submission))
            if self.coursedir.groupshared:
                files.share_with_group(new, self.log)
            files.move_into_place(new, folder)

    def _add_to_gradebook(self, submissions: list[ListedSubmission]) -> None:
        try:
            gradebook.add_to_gradebook(self.coursedir, submissions)
        except Exception as error:  # noqa: BLE001 - names are optional, and SQLAlchemy may raise anything
            self.log.warning(
                "The students' names could not be written into the gradebook (%s)",
                type(error).__name__,
            )


def _best_submission(
    newest_first: list[ListedSubmission], due: datetime.datetime | None
) -> ListedSubmission:
    """The newest submission before the due date, else the newest."""
    in_time = (
        submission
        for submission in newest_first
        if due is None or parse_utc(submission.timestamp) <= due
    )
    return next(in_time, newest_first[0])


def _receipt(submission: ListedSubmission | SubmitReceipt, left_out: Sequence[LeftOut] = ()) -> str:
    content: dict[str, object] = {
        "course_id": submission.course_id,
        "assignment_id": submission.assignment_id,
        "student": submission.student,
        "submission_id": submission.submission_id,
        "timestamp": submission.timestamp,
        "sha256": submission.sha256,
        "size": submission.size,
    }
    if left_out:
        content["left_out"] = [
            {"path": escaped(item.path), "reason": escaped(item.reason)} for item in left_out
        ]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _is_notebook(member: Member) -> bool:
    return member.source is not None and Path(member.name).suffix == ".ipynb"
