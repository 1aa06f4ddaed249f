"""What the pages say is so: messages, options, variables, versions, and examples that work."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from nbgrader.apps import NbGraderApp
from traitlets.config import Config, HasTraits

import nbexchange.plugin
from nbexchange.app import NbExchange
from tests.support.archives import NOTEBOOK, tar_gz_of, upload_headers
from tests.support.service import Service

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/decisions").glob("*.md"),
        *(ROOT / "chart").glob("*.md"),
        *(ROOT / "examples").rglob("README.md"),
    ]
)

_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)\)")


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT))


def blocks(file: Path, *languages: str) -> list[str]:
    found = _FENCE.findall(file.read_text(encoding="utf-8"))
    return [body for _, language, body in found if language in languages]


def prose(file: Path) -> str:
    return _FENCE.sub("", file.read_text(encoding="utf-8"))


# -- links, as they are on a forge


@pytest.mark.parametrize("file", PAGES, ids=ids)
def test_links_lead_to_a_file_and_a_heading_in_it(file):
    broken = [link for link in _LINK.findall(prose(file)) if not leads_somewhere(file, link)]

    assert broken == []


def leads_somewhere(file: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return link.startswith("https://")
    path, _, anchor = link.partition("#")
    target = (file.parent / path).resolve() if path else file
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target)


@functools.cache
def anchors(file: Path) -> set[str]:
    """Of a file's headings, as forges make them."""
    found = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found]
    return {heading.strip().replace(" ", "-") for heading in plain}


# -- code


@pytest.mark.parametrize("file", PAGES, ids=ids)
def test_code_can_be_read(file):
    for code in blocks(file, "python"):
        ast.parse(textwrap.dedent(code))
    for data in blocks(file, "json"):
        json.loads(data)
    for data in blocks(file, "yaml"):
        list(yaml.safe_load_all(data))


@functools.cache
def known_options() -> dict[str, set[str]]:
    """Of the classes that our pages configure, ours and those of the programs around us."""
    import jupyterhub.auth
    import jupyterhub.spawner
    import nbgrader.exchange.default
    from jupyter_server.serverapp import ServerApp
    from jupyterhub.app import JupyterHub
    from ltiauthenticator.lti11.auth import LTI11Authenticator
    from ltiauthenticator.lti13.auth import LTI13Authenticator
    from nbgrader.exchange import ExchangeFactory

    ours = [NbExchange, *NbExchange.classes, *vars(nbexchange.plugin).values()]
    ours += [one for command, _ in NbExchange.subcommands.values() for one in command.__mro__]
    around = [*NbGraderApp().classes, *vars(nbgrader.exchange.default).values()]
    around += [ExchangeFactory, JupyterHub, ServerApp, LTI11Authenticator, LTI13Authenticator]
    around += [jupyterhub.auth.Authenticator, jupyterhub.spawner.Spawner]
    found: dict[str, set[str]] = {}
    for one in [*ours, *around]:
        if isinstance(one, type) and issubclass(one, HasTraits):
            found.setdefault(one.__name__, set()).update(one.class_traits(config=True))
    return found


NOT_HERE = {"Class", "DockerSpawner", "KubeSpawner"}
"""Classes of packages that the tests do not install, and one that stands for any."""


@pytest.mark.parametrize("file", PAGES, ids=ids)
def test_options_that_are_named_exist(file):
    known = known_options()
    text = file.read_text(encoding="utf-8")
    own = set(re.findall(r"^class (\w+)\(", text, re.MULTILINE))

    for section, name in re.findall(r"(?:\bc\.|--)([A-Z]\w+)\.(\w+)", text):
        if section in NOT_HERE | own:
            continue
        assert section in known, f"{section}.{name}"
        assert name in known[section], f"{section}.{name}"


@pytest.mark.parametrize("file", PAGES, ids=ids)
def test_options_in_values_of_the_chart_exist(file):
    known = known_options()

    for data in blocks(file, "yaml"):
        for document in yaml.safe_load_all(data):
            config = document.get("config") if isinstance(document, dict) else None
            for section, options in (config or {}).items():
                assert set(options) <= known[section]


def test_every_variable_that_is_read_is_told_and_every_one_that_is_told_is_read():
    told = {
        name
        for page in ("configuration", "plugin")
        for name in re.findall(
            r"`([A-Z][A-Z_]+)`", table_of("The environment", ROOT / f"docs/{page}.md")
        )
    }

    elsewhere = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}  # obstore reads them
    assert told - elsewhere == variables() - {"PATH", "LANG", "KUBERNETES_SERVICE_HOST"}


def table_of(heading: str, file: Path) -> str:
    _, _, rest = file.read_text().partition(f"## {heading}\n")
    return "\n".join(line for line in rest.partition("\n## ")[0].splitlines() if line[:1] == "|")


def variables() -> set[str]:
    """The names in the code that are those of environment variables, where it reads some."""
    found = set()
    for file in (ROOT / "nbexchange").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                called = ast.unparse(node.func)
                first = node.args[0]
                if called in READERS and isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


READERS = {
    "os.environ.get",
    "os.getenv",
    "_texts_from_env",
    "_of_service",
    "_list_in_environment",
}
"""What takes the name of a variable."""


# -- messages


TABLES = {
    "docs/troubleshooting.md": None,
    "docs/students.md": "What messages mean",
    "docs/instructors.md": "What messages mean",
}


@functools.cache
def sources() -> str:
    """All that the code may say; what it fills in is an ellipsis."""
    found: list[str] = []
    places = [ROOT / "nbexchange", Path(spec_of("nbgrader")), Path(spec_of("traitlets"))]
    for place in places:
        for file in place.rglob("*.py"):
            if "tests" not in file.parts or place == ROOT / "nbexchange":
                found += texts(ast.parse(file.read_text(encoding="utf-8")))
    pages = Path(spec_of("nbgrader")).rglob("*.tpl")
    found += [plain(re.sub(r"<[^>]*>|{{[^}]*}}", "…", page.read_text())) for page in pages]
    return "\n".join(found)


def spec_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.submodule_search_locations
    return spec.submodule_search_locations[0]


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield plain(re.sub(r"%(?:\.\d+)?[a-z]|%\(\w+\)s|\{[^{}]*\}", "…", node.value))
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield plain("".join(map(str, parts)))


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").replace("'", "").split()).lower()


def messages() -> Iterator[tuple[str, str]]:
    for name, heading in TABLES.items():
        file = ROOT / name
        text = file.read_text() if heading is None else table_of(heading, file)
        for line in text.splitlines():
            said = line.strip("|").split(" | ")[0].strip()
            if line.startswith("|") and said != "message" and set(said) - set("-|"):
                yield name, said


@pytest.mark.parametrize(("file", "message"), list(messages()))
def test_a_message_that_is_explained_is_one_that_is_said(file, message):
    # Who says it, in brackets, is not part of it; nor is a name that stands for any name.
    shown = re.sub(r" \((?:log|readyz|in |on |any more)[^)]*\)", "", message)
    for name in NAMES:
        shown = shown.replace(name, "…")

    for part in re.split(r"…|; (?=does not|cannot)", plain(shown)):
        words = part.strip(" .:;,'\"()")
        if len(words) > 6:
            assert words in sources(), words


NAMES = (
    " Your courses are",
    "'release/…'",
    "/home/",
    "2, and you have version 1",
    "3 of 120",
    "https://",
    "physics",
    "ps1",
    "'source/…'",
)
"""What the pages write where a message has a name, a number, or more words at times."""


# -- versions


def test_every_place_names_the_same_version():
    version = nbexchange.__version__
    chart = yaml.safe_load((ROOT / "chart/Chart.yaml").read_text())

    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    compose = ROOT / "docker-compose.yml"
    assert f"nbexchange:${{NBEXCHANGE_TAG:-{version}}}" in compose.read_text()


# -- examples


@pytest.fixture
def service(tmp_path):
    with Service(tmp_path / "data") as running:
        yield running


def test_the_client_on_the_page_hands_in_a_folder(service, tmp_path):
    (code,) = blocks(ROOT / "docs" / "clients.md", "python")
    ada, token = service.instructor(), service.enrol("bob", {"physics": "Student"})
    body = tar_gz_of({"ps1.ipynb": NOTEBOOK})
    ada.post(
        "assignment", body, upload_headers(body), course_id="physics", assignment_id="ps1"
    ).raise_for_status()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "ps1.ipynb").write_bytes(NOTEBOOK)

    done = subprocess.run(
        [sys.executable, "-c", code, "physics", "ps1", str(tmp_path / "work")],
        env={**os.environ, "NBEXCHANGE_URL": service.url, "NBEXCHANGE_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.startswith("submitted at 2"), done.stderr
    (one,) = ada.get("collections", course_id="physics", assignment_id="ps1").json()["value"]
    assert one["student_id"] == "bob"
    assert one["submission_id"] in done.stdout


def test_the_user_handler_on_the_page_says_who_people_are(tmp_path):
    code = next(one for one in blocks(ROOT / "docs/extending.md", "python") if "Roster" in one)
    courses = tmp_path / "courses"
    courses.mkdir()
    (courses / "physics.json").write_text('{"t-ada": "ada", "t-bob": "bob"}')
    config = Config()
    exec(code, {"c": config})  # as a configuration file is read
    config.Roster.folder = str(courses)

    with Service(tmp_path / "data", config) as service:
        wires = {token: service.wire(token) for token in ("t-ada", "t-bob", "t-nobody")}
        found = {
            token: wire.get("collections", course_id="physics").status_code
            for token, wire in wires.items()
        }
        released = {
            token: wire.delete("assignment", course_id="physics", assignment_id="x").status_code
            for token, wire in wires.items()
        }

    assert found == {"t-ada": 200, "t-bob": 200, "t-nobody": 401}
    assert released == {"t-ada": 404, "t-bob": 403, "t-nobody": 401}
