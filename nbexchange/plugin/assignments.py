"""release and fetch: an assignment on its way from the instructor to the students."""

import datetime
from pathlib import Path
from typing import Any

from nbgrader.exchange import abc
from traitlets import Bool

from nbexchange.plugin import fetched, files, packing
from nbexchange.plugin.client import FetchedRelease, RequestRefused, ServiceError
from nbexchange.plugin.exchange import Exchange, sentence
from nbexchange.plugin.packing import PackingRules, Selection


class ExchangeReleaseAssignment(Exchange, abc.ExchangeReleaseAssignment):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeReleaseAssignment.*`"""

    def _load_config(self, cfg: Any, **kwargs: Any) -> None:
        _adopt_old_section(self, cfg, "ExchangeRelease", "ExchangeReleaseAssignment")
        super()._load_config(cfg, **kwargs)

    def init_src(self) -> None:
        assignment_id = self.coursedir.assignment_id
        self.src_path = self._folder(self.coursedir.release_directory, assignment_id)
        if Path(self.src_path).is_dir():
            return
        source = self._folder(self.coursedir.source_directory, assignment_id)
        if Path(source).is_dir():
            raise self.failed(
                f"Assignment found in '{source}' but not '{self.src_path}', "
                "run `nbgrader generate_assignment` first."
            )
        raise self.not_found(self.src_path, map(str, Path(self.src_path).parent.glob("*")))

    def _folder(self, step: str, assignment_id: str) -> str:
        return str(self.coursedir.format_path(step, ".", assignment_id))

    def init_dest(self) -> None:
        self.check_course()

    def copy_files(self) -> None:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        if self._is_released():
            if not self.force:
                raise self._released_already()
            self.log.info("Overwriting files: %s %s", course_id, assignment_id)
        self.log.info("Source: %s", self.src_path)
        self.log.info("Destination: %s", self.display_path(course_id, "outbound", assignment_id))
        self._send()
        self.log.info("Released as: %s %s", course_id, assignment_id)

    def _is_released(self) -> bool:
        released, _ = self.client.assignments(self.coursedir.course_id)
        return any(release.assignment_id == self.coursedir.assignment_id for release in released)

    def _send(self) -> None:
        selection = self._select()
        try:
            with selection.packed((), self.max_buffer_size) as payload:
                self._refuse_to_leave_out(selection)
                self.client.release(
                    self.coursedir.course_id,
                    self.coursedir.assignment_id,
                    payload,
                    overwrite=self.force,
                )
        except RequestRefused as refusal:
            # 412 means that a colleague has released it meanwhile, if the list confirms that.
            if refusal.status != 412 or self.force or not self._is_released():
                raise
            raise self._released_already() from None

    def _select(self) -> Selection:
        selection = packing.select(Path(self.src_path), PackingRules.of(self.coursedir))
        for file in selection.too_large:
            self.log.warning(
                "Ignoring file too large '%s' (see config option CourseDirectory.max_file_size)",
                Path(self.src_path, file.path),
            )
        self._refuse_to_leave_out(selection)
        selection.check_size("Remove what is not needed, or raise the option for the whole course.")
        return selection

    def _refuse_to_leave_out(self, selection: Selection) -> None:
        """Refuse an incomplete release: students would work on it without its data."""
        if selection.left_out:
            raise ServiceError(
                "Nothing was released, because some files cannot be sent: "
                f"{'; '.join(packing.listed(selection.left_out))}. Rename or remove them, or add "
                "their names to c.CourseDirectory.ignore."
            )

    def _released_already(self) -> Exception:
        return self.failed(
            "Destination already exists, add --force to overwrite: "
            f"{self.coursedir.course_id} {self.coursedir.assignment_id}"
        )


class ExchangeFetchAssignment(Exchange, abc.ExchangeFetchAssignment):  # type: ignore[misc]  # nbgrader is not typed
    """`c.ExchangeFetchAssignment.*`"""

    reset = Bool(
        False,
        help="Whether to start over with a fresh copy. The existing folder is renamed, so all work "
        "in it is kept.",
    ).tag(config=True)

    def _load_config(self, cfg: Any, **kwargs: Any) -> None:
        _adopt_old_section(self, cfg, "ExchangeFetch", "ExchangeFetchAssignment")
        super()._load_config(cfg, **kwargs)

    def init_src(self) -> None:
        self.check_course()
        self.check_access()
        self.strip_slash()

    def init_dest(self) -> None:
        # Checked before the download, because a failed fetch must not leave a folder.
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        name = self.local_name(course_id, assignment_id)
        self.dest_path = Path(self.local_folder(course_id, assignment_id)).absolute()
        self.remove_abandoned(self.dest_path.parent)
        if not self.dest_path.is_dir() or self.reset:
            return
        self._refuse_other_course(name)
        if not self.replace_missing_files and self._is_here():
            raise self._fetched_already(name)

    def _refuse_other_course(self, name: str) -> None:
        course_id = self.course_of_folder(self.dest_path)
        if course_id is not None and course_id != self.coursedir.course_id:
            raise self.failed(
                f"The folder {name} contains an assignment of the course {course_id}, not of "
                f"{self.coursedir.course_id}. Nothing was changed. Rename or move the folder, then "
                "fetch again."
            )

    def _is_here(self) -> bool:
        """Whether the folder is a copy. If the service does not tell, any work in it counts."""
        try:
            released = self.find_release(self.coursedir.course_id, self.coursedir.assignment_id)
        except ServiceError as error:
            self.log.debug("The notebooks of the release are unknown. %s", error)
            released = None
        if released is None:
            return files.has_work(self.dest_path)
        return self.is_copy(released, self.dest_path)

    def _fetched_already(self, name: str) -> Exception:
        error = self.failed(f"You already have a copy of the assignment in this directory: {name}")
        self.log.info(
            "Nothing in it was changed. To restore missing files, use --replace. To start over, "
            "rename or move the folder and fetch again. "
            "--ExchangeFetchAssignment.reset=True does both, and your work stays in a folder "
            "beside it."
        )
        self._log_news()
        return error

    def copy_files(self) -> None:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        release = self._release()
        limits, ignored = PackingRules.of(self.coursedir).limits, tuple(self.coursedir.ignore)
        with release as file, files.unpacked(file, self.dest_path, limits) as new:
            self.log.info("Source: %s", self.display_path(course_id, "outbound", assignment_id))
            self.log.info("Destination: %s", self.dest_path)
            files.prune(new, lambda path: packing.matches(path.name, ignored))
            if self.dest_path.is_dir() and not self.reset:
                self._complete(new)
                if not self.replace_missing_files:  # it was not a copy, and is one now
                    self._record_fetch(release)
                self._log_news()
            else:
                self._begin_with(new)
                self._record_fetch(release)
        self.log.info("Fetched as: %s %s", course_id, assignment_id)

    def _complete(self, new: Path) -> None:
        # With --replace the files were there before, so each restored file is worth a warning.
        log = self.log.warning if self.replace_missing_files else self.log.debug
        files.replace_missing(new, self.dest_path, log)

    def _begin_with(self, new: Path) -> None:
        if not self.dest_path.is_dir():
            files.move_into_place(new, self.dest_path)
            return
        kept = files.replace_keeping_old(new, self.dest_path, f"kept {_now()}")
        self.log.info("Your copy, with all your work, is kept in: %s", kept)

    def _record_fetch(self, release: FetchedRelease) -> None:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        cache, folder = Path(self.cache), self.dest_path
        try:
            fetched.record(cache, course_id, assignment_id, folder, release.sha256, release.version)
        except OSError as error:  # the assignment is there, which is what matters
            self.log.debug("The fetched version was not recorded. %s", sentence(error))

    def _log_news(self) -> None:
        """Warn about a newer release. Asks the service only if the fetched version is known."""
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        if not fetched.find(Path(self.cache), course_id, assignment_id, self.dest_path):
            return
        try:
            released = self.find_release(course_id, assignment_id)
        except ServiceError as error:
            self.log.debug("Could not check for a newer release. %s", error)
            return
        news = self.news(released, self.dest_path) if released else None
        if news:
            self.log.warning(news)

    def _release(self) -> FetchedRelease:
        course_id, assignment_id = self.coursedir.course_id, self.coursedir.assignment_id
        try:
            return self.client.fetch(course_id, assignment_id)
        except RequestRefused as refusal:
            if refusal.status != 404:
                raise
        # This raises an error of its own if the course does not exist.
        released, _ = self.client.assignments(course_id)
        raise self.not_found(
            self.display_path(course_id, "outbound", assignment_id),
            (
                self.display_path(course_id, "outbound", release.assignment_id)
                for release in released
            ),
        )


def _now() -> str:
    """The time in UTC, without characters that some systems forbid in file names."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H.%M.%S")


def _adopt_old_section(exchange: Exchange, cfg: Any, old: str, new: str) -> None:
    """Read a section by its name before nbgrader 0.7, as nbgrader still does."""
    if old in cfg:
        options = "\n".join(f"{old}.{key} = {value!r}" for key, value in cfg[old].items())
        exchange.log.warning("Use %s in config, not %s. Outdated config:\n%s", new, old, options)
        cfg[new].merge(cfg[old])
        del cfg[old]
