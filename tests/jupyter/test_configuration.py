"""nbgrader's configuration and formgrader's handlers, as threads of a Jupyter server use them."""

from __future__ import annotations

import inspect
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from nbgrader.server_extensions.formgrader import apihandlers, handlers
from traitlets.config import Config

from nbexchange.plugin import configuration
from nbexchange.plugin.course_api import CourseSnapshot
from nbexchange.plugin.formgraders import KINDS

LOG = logging.getLogger("test")


def write_config(folder: Path, course_id: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.course_id = {course_id!r}\n"
    )
    return folder


def test_configurations_of_many_folders_at_a_time_are_not_mixed_up(tmp_path: Path):
    """nbgrader goes into the folder, which all threads of a process share."""
    here = Path.cwd()
    folders = {f"course-{i}": write_config(tmp_path / str(i), f"course-{i}") for i in range(8)}

    with ThreadPoolExecutor(8) as threads:
        loaded = {
            name: [threads.submit(configuration.load, LOG, folder) for _ in range(5)]
            for name, folder in folders.items()
        }
        found = {
            name: {job.result().CourseDirectory.course_id for job in jobs}
            for name, jobs in loaded.items()
        }

    assert found == {name: {name} for name in folders}
    assert Path.cwd() == here


def test_the_last_folder_is_on_top(tmp_path: Path):
    lower, upper = write_config(tmp_path / "a", "a"), write_config(tmp_path / "b", "b")

    assert configuration.load(LOG, lower, upper).CourseDirectory.course_id == "b"


def test_loading_does_not_close_the_handlers_of_the_server(tmp_path: Path):
    """A new application of nbgrader does: a log file that is opened for writing loses its lines."""
    file = tmp_path / "server.log"
    handler = logging.FileHandler(file, mode="w")
    log = logging.getLogger("server of a test")
    log.addHandler(handler)
    try:
        log.warning("before")
        configuration.load(log, write_config(tmp_path / "course", "physics"))
        log.warning("after")
    finally:
        log.removeHandler(handler)
        handler.close()

    assert file.read_text().splitlines() == ["before", "after"]


ALL = {
    handler
    for _, handler, *_ in (*handlers.default_handlers, *apihandlers.default_handlers)
    if handler.__module__.startswith("nbgrader.")
}


def test_every_handler_that_uses_nbgraders_api_runs_in_a_job():
    """It asks the exchange, or converts notebooks, or opens a gradebook of its own."""
    uses = {handler for handler in ALL if "self.api" in inspect.getsource(handler)}

    assert set(KINDS) == uses


def test_every_handler_that_stays_in_the_event_loop_needs_only_the_gradebook():
    """Its session of the database belongs to the thread of the loop."""
    for handler in ALL - set(KINDS):
        source = inspect.getsource(handler)
        assert "api." not in source.replace("apihandlers", "")
        assert "exchange" not in source


def formgrader_of(config: Config, root: Path) -> SimpleNamespace:
    return SimpleNamespace(
        config=config,
        config_dir=str(root),
        load_cwd_config=False,
        coursedir=SimpleNamespace(root=str(root)),
    )


def test_a_course_is_what_formgrader_had_open_when_the_click_came(tmp_path: Path):
    folder = write_config(tmp_path / "a", "a")
    formgrader = formgrader_of(Config(), folder)
    course = CourseSnapshot.of(formgrader)

    formgrader.config_dir = formgrader.coursedir.root = "/elsewhere"
    coursedir = course.directory(course.load(LOG), LOG)

    assert (coursedir.course_id, coursedir.root) == ("a", str(folder))


def test_a_course_goes_to_another_process_without_functions_of_its_configuration(tmp_path: Path):
    (tmp_path / "nbgrader_config.py").write_text(
        "c = get_config()\nc.CourseDirectory.course_id = 'physics'\n"
        "c.BaseConverter.post_convert_hook = lambda **_: None\n"
    )
    config = configuration.load(LOG, tmp_path)

    course = pickle.loads(pickle.dumps(CourseSnapshot.of(formgrader_of(config, tmp_path))))

    assert "post_convert_hook" not in course.config.BaseConverter
    loaded = course.load(LOG)
    assert loaded.CourseDirectory.course_id == "physics"
    assert callable(loaded.BaseConverter.post_convert_hook)
