"""submit and collect: a student's work on its way to the instructor, and the proof of it."""

import datetime
import json
import os
import secrets
from pathlib import Path

from nbgrader.exchange import abc
from nbgrader.utils import parse_utc
from traitlets import Integer

from nbexchange import archive
from nbexchange.archive import Member
from nbexchange.plugin import files, gradebook
from nbexchange.plugin.answers import Released, Submission, SubmissionReceipt, is_folder_name
from nbexchange.plugin.client import Parcel, Refused, ServiceError
from nbexchange.plugin.exchange import MISHAPS, Exchange, is_glob, is_wanted, sentence

RECEIPT = "submission_receipt.json"
"""Says which submission a folder holds. autograde and generate_feedback carry it along with the
other files, so that feedback finds its way back to the very submission it is about."""

TIMESTAMP = "timestamp.txt"
SECRET = "submission_secret.txt"  # noqa: S105 - the name of a file
_OURS = {RECEIPT, TIMESTAMP, SECRET}


class ExchangeSubmit(Exchange, abc.ExchangeSubmit):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeSubmit.*`"""

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
            raise self.not_found(str(self.src_path), (str(one) for one in others if one.is_dir()))

    def init_dest(self) -> None:
        self.check_course()
        self.check_access()
        student_id = self.coursedir.student_id
        if student_id not in ("", "*") and ("*" in student_id or "+" in student_id):
            raise self.failed(f"The student ID should contain no '*' nor '+'; got {student_id}")

    def copy_files(self) -> None:
        released = self._release()
        self.log.info("Source: %s", self.src_path)
        files.check_size(self.src_path, self.coursedir)
        contents = files.members(self.src_path, files.rules(self.coursedir, self.log))
        self._compare_notebooks(released, contents)
        news = self.news(released, self.src_path)
        if news:
            self.log.warning("%s This is submitted all the same.", news)
        with files.packed(self._with_marks(contents), self.max_buffer_size) as parcel:
            receipt = self.client.submit(
                self.coursedir.course_id, self.coursedir.assignment_id, parcel
            )
            name = f"{receipt.student}+{receipt.assignment_id}+{receipt.timestamp}"
            self.log.info(
                "Destination: %s",
                self.place(receipt.course_id, "inbound", f"{name}+{receipt.submission_id}"),
            )
            self._keep(parcel, receipt)
        self.log.info(
            "Submitted as: %s %s %s", receipt.course_id, receipt.assignment_id, receipt.timestamp
        )

    def _release(self) -> Released:
        """What is being answered; also the moment to notice that somebody poses as another."""
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        released, own = self.client.assignments(course_id)
        self._refuse_to_impersonate(own)
        for one in released:
            if one.assignment_id == assignment_id:
                return one
        raise self.failed(
            f"Assignment not found: {self.place(course_id, 'outbound', assignment_id)}"
        )

    def _refuse_to_impersonate(self, own: list[Submission]) -> None:
        names = {one.student for one in own} or {os.environ.get("JUPYTERHUB_USER", "")}
        if self.coursedir.student_id not in ("", "*", *names):
            raise self.failed(
                f"You cannot submit as {self.coursedir.student_id}: the exchange service takes "
                "your name from your login. Leave out --student."
            )

    def _compare_notebooks(self, released: Released, contents: list[Member]) -> None:
        expected = set(released.notebook_files)
        submitted = {one.name for one in contents if _is_notebook(one)}
        if expected == submitted:
            return
        found = "\n\t".join(
            f"{name}: {'FOUND' if name in submitted else 'MISSING'}" for name in sorted(expected)
        )
        sent = "\n\t".join(
            f"{name}: {'OK' if name in expected else 'EXTRA'}" for name in sorted(submitted)
        )
        diff = f"Expected:\n\t{found}\nSubmitted:\n\t{sent}"
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

    def _with_marks(self, contents: list[Member]) -> list[Member]:
        """With nbgrader's marks instead of whatever the student has under these names.

        The secret means nothing here. It lets nbgrader's own exchange give feedback on this
        submission, should a course go back to it.
        """
        students = [one for one in contents if one.name.partition("/")[0] not in _OURS]
        return [
            *students,
            Member(TIMESTAMP, self.timestamp.encode()),
            Member(SECRET, secrets.token_hex(64).encode()),
        ]

    def _keep(self, parcel: Parcel, receipt: SubmissionReceipt) -> None:
        """A copy here, with the receipt. The work is submitted, whether this succeeds or not."""
        names = (receipt.course_id, receipt.student)
        copy = self.cached_copy(
            receipt.course_id, receipt.student, receipt.assignment_id, receipt.timestamp
        )
        try:
            if not all(map(is_folder_name, names)):
                raise ServiceError(f"{receipt.student!r} cannot be part of the name of a folder")
            copy.parent.mkdir(parents=True, exist_ok=True)
            parcel.file.seek(0)
            marks = {TIMESTAMP: receipt.timestamp.encode(), RECEIPT: _receipt(receipt).encode()}
            archive.unpack(parcel.file, copy, extra=marks)
        except MISHAPS as error:
            self.log.warning(
                "Your work is submitted, but no copy of it is kept here: %s", sentence(error)
            )


class ExchangeCollect(Exchange, abc.ExchangeCollect):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeCollect.*`; `check_owner` means nothing where files have no owner."""

    collect_workers = Integer(
        4, min=1, max=16, help="How many submissions are fetched at a time."
    ).tag(config=True)

    def init_src(self) -> None:
        self.check_course()
        due = self._duedate() if self.before_duedate else None
        found = self._submissions(latest=due is None)
        by_student: dict[str, list[Submission]] = {}
        for one in sorted(found, key=lambda one: one.timestamp, reverse=True):
            by_student.setdefault(one.student, []).append(one)
        self._chosen = [_choose(ones, due) for _, ones in sorted(by_student.items())]

    def _duedate(self) -> datetime.datetime | None:
        try:
            return gradebook.duedate(self.coursedir)
        except Exception as error:  # noqa: BLE001 - SQLAlchemy's and alembic's; see Exchange.start
            kind = type(error).__name__
        raise self.failed(
            f"The gradebook cannot say when {self.coursedir.assignment_id} is due ({kind}). Mend "
            "it, or collect without --before-duedate."
        )

    def _submissions(self, *, latest: bool) -> list[Submission]:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        student = self.coursedir.student_id
        one = None if student == "" or is_glob(student) else student
        try:
            found = self.client.inbound(course_id, assignment_id, one, latest=latest)
        except Refused as refusal:
            if refusal.status != 404:
                raise
            self.client.assignments(course_id)  # refuses when it is the course that is not there
            return []
        return [
            one
            for one in found
            if one.assignment_id == assignment_id and is_wanted(one.student, student)
        ]

    def init_dest(self) -> None:
        pass

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
        self._introduce([one for one in self._chosen if one.student not in failures])
        self.fail_with("submissions could not be collected", failures, len(self._chosen))

    def _collect_all(self) -> dict[str, str]:
        """Reasons by student, of those that failed; a bad one does not stop the others."""
        failures = {}
        for one, outcome in self.in_order(self._collect, self._chosen, self.collect_workers):
            try:
                self.log.info("%s: %s %s", outcome(), one.student, one.assignment_id)
            except MISHAPS as error:
                reason = sentence(error)
                failures[one.student] = reason
                self.log.error(
                    "Could not collect %s %s: %s", one.student, one.assignment_id, reason
                )
        return failures

    def _collect(self, one: Submission) -> str:
        """Get one submission, if it is wanted; what was done, in nbgrader's words."""
        if not is_folder_name(one.student):
            raise ServiceError(f"{one.student!r} cannot be the name of a folder")
        folder = Path(
            self.coursedir.format_path(
                self.coursedir.submitted_directory, one.student, one.assignment_id
            )
        )
        is_there = folder.is_dir()
        if is_there and not self._is_better(one, folder):
            if self.update:
                return "No newer submission to collect"
            return "Submission already exists, use --update to update"
        self._bring(one, folder)
        return "Updating submission" if is_there else "Collecting submission"

    def _is_better(self, one: Submission, folder: Path) -> bool:
        existing, new = self._existing_timestamp(folder), parse_utc(one.timestamp)
        if self.update and (existing is None or new > existing):
            return True
        return bool(self.before_duedate and existing != new)

    def _existing_timestamp(self, folder: Path) -> datetime.datetime | None:
        try:
            found: datetime.datetime | None = self.coursedir.get_existing_timestamp(str(folder))
        except (AttributeError, ValueError, OverflowError):
            # nbgrader trips over its own complaint about a timestamp that it cannot read.
            self.log.warning("Invalid timestamp string: %s", folder / TIMESTAMP)
            return None
        return found

    def _bring(self, one: Submission, folder: Path) -> None:
        with self.client.collect(one) as file, files.unpacked(file, folder) as new:
            files.check_size(new, self.coursedir)
            files.prune(new, files.rules(self.coursedir, self.log))
            files.put(new, TIMESTAMP, one.timestamp)
            files.put(new, RECEIPT, _receipt(one))
            if self.coursedir.groupshared:
                files.share_with_group(new, self.log)
            files.settle(new, folder)

    def _introduce(self, submissions: list[Submission]) -> None:
        try:
            gradebook.introduce(self.coursedir, submissions)
        except Exception as error:  # noqa: BLE001 - names are a comfort, whatever SQLAlchemy says
            self.log.warning(
                "The students' names could not be written into the gradebook (%s)",
                type(error).__name__,
            )


def _choose(newest_first: list[Submission], due: datetime.datetime | None) -> Submission:
    """The newest in time, else the newest."""
    in_time = (one for one in newest_first if due is None or parse_utc(one.timestamp) <= due)
    return next(in_time, newest_first[0])


def _receipt(one: Submission | SubmissionReceipt) -> str:
    said = {
        "course_id": one.course_id,
        "assignment_id": one.assignment_id,
        "student": one.student,
        "submission_id": one.submission_id,
        "timestamp": one.timestamp,
        "sha256": one.sha256,
        "size": one.size,
    }
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def _is_notebook(member: Member) -> bool:
    return member.source is not None and Path(member.name).suffix == ".ipynb"
