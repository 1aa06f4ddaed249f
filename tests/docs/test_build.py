"""The site that `make docs` makes: whole, without warnings, and with nothing from elsewhere."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from traitlets.config import Application, Configurable

import nbexchange
from nbexchange.app import NbExchange
from nbexchange.hub import configure
from tests.support.parts import missing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md")]

pytestmark = pytest.mark.slow  # to make the site takes ten seconds

LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href",),
    "video": ("src", "poster"),
}
"""What a browser asks for without being told to."""


@dataclass
class Page:
    """One page of the site: what it names, where it leads, and what it says."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._sections: list[str] = []
        self._is_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.page.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.page.links.append(given["href"])
        if tag == "section":
            self._sections.append(given.get("id", ""))
        self.page.loads += [given[name] for name in LOADING.get(tag, ()) if name in given]
        self._is_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._sections.pop()

    def handle_data(self, data: str) -> None:
        if self._is_script:
            return
        self.page.text += data
        for section in self._sections:
            self.page.sections[section] = self.page.sections.get(section, "") + data


@functools.cache
def read(file: Path) -> Page:
    reader = _Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    return reader.page


@dataclass
class Site:
    """What Sphinx made, and what it said meanwhile."""

    folder: Path
    status: int
    said: str

    def page(self, name: str) -> Page:
        return read(self.folder / f"{name}.html")

    @property
    def pages(self) -> dict[str, Page]:
        """By the paths of their files in the site."""
        return {
            file.relative_to(self.folder).as_posix(): read(file)
            for file in self.folder.rglob("*.html")
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    for part in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(part) is None:
            missing(f"{part} is not installed (the group docs of pyproject.toml)")
    folder = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "-b", "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Site(folder, done.returncode, done.stdout)


def test_it_is_made_without_a_warning(site):
    assert site.said == ""
    assert site.status == 0


def test_the_options_that_the_makefile_gives_are_those_of_this_test():
    makefile = (ROOT / "Makefile").read_text()

    assert "sphinx-build --fail-on-warning --keep-going --nitpicky -b html docs" in makefile


def test_every_page_can_be_reached_from_the_first(site):
    reached, ahead = set(), {"index.html"}
    while ahead:
        name = ahead.pop()
        reached.add(name)
        links = read(site.folder / name).links
        inner = {target(urlsplit(link).path, name) for link in links if not urlsplit(link).scheme}
        ahead |= {path for path in inner if path.endswith(".html")} - reached

    pages = {file.relative_to(DOCS).with_suffix(".html").as_posix() for file in PAGES}
    assert pages <= reached


def target(path: str, origin: str) -> str:
    """The path in the site that a link on the page `origin` leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), unquote(path)))


def test_links_lead_to_a_page_and_a_place_in_it(site):
    broken = [
        f"{name}: {link}"
        for name, page in site.pages.items()
        for link in page.links
        if not leads_somewhere(link, name, site.folder, site.pages)
    ]

    assert broken == []


def leads_somewhere(link: str, origin: str, folder: Path, pages: dict[str, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme in ("http", "https")
    name = target(parts.path, origin) if parts.path else origin
    if name not in pages:
        return (folder / name).is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[name].ids


def test_a_page_loads_nothing_from_elsewhere(site):
    outside = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"]?)(?:https?:)?//")

    for name, page in site.pages.items():
        assert [place for place in page.loads if urlsplit(place).netloc] == [], name
    for file in [*site.folder.rglob("*.html"), *site.folder.rglob("*.css")]:
        assert not outside.search(file.read_text()), file.name


# -- references made from the code


def configurables() -> Iterator[type[Configurable]]:
    """Every class of ours with options, wherever it is."""
    for module in pkgutil.walk_packages(nbexchange.__path__, "nbexchange."):
        if module.name == "nbexchange.__main__":
            continue
        for one in vars(importlib.import_module(module.name)).values():
            if isinstance(one, type) and issubclass(one, Configurable):
                yield one


def options() -> dict[str, tuple[type[Configurable], str]]:
    """`Class.trait` of all that somebody may configure in a class of ours."""
    ours = [one for one in configurables() if one.__module__.startswith("nbexchange.")]
    return {
        f"{one.__name__}.{name}": (one, name)
        for one in ours
        for name in one.class_own_traits(config=True)
    }


def targets(program: type[Application]) -> set[str]:
    """`Class.trait` of all that has a short option."""
    flags = [settings for settings, _ in program.flags.values()]
    return set(program.aliases.values()) | {
        f"{section}.{name}"
        for settings in flags
        for section, values in settings.items()
        for name in values
    }


def test_every_option_is_described_with_its_kind_default_and_help(site):
    pages = [site.page("configuration"), site.page("plugin")]
    short = set().union(*(targets(one) for one, _ in NbExchange.subcommands.values()))

    for place, (one, name) in options().items():
        trait = one.class_traits()[name]
        words = " ".join((trait.help or "").replace("`", "").split())
        assert words, f"{place} has no help"
        if issubclass(one, Application) and one is not NbExchange:
            assert place in short, f"{place} has no short option, by which commands.md tells it"
            continue
        anchor = place.lower().replace(".", "-").replace("_", "-")
        found = [page.sections[anchor] for page in pages if anchor in page.sections]
        assert found, place
        said = " ".join(found[0].split())
        assert words in said, place
        assert "what" in said, place


def test_short_options_and_variables_are_told_where_the_option_is(site):
    sections = site.page("configuration").sections

    assert "--port=" in sections["nbexchange-port"]
    assert "JUPYTERHUB_SERVICE_URL" in sections["nbexchange-port"]
    assert "9000" in sections["nbexchange-port"]
    assert "--debug" in sections["nbexchange-debug"]
    assert "NBEX_DB_URL" in sections["nbexchange-db-url"]
    assert "from 0 to 30" in sections["jupyterhubuserhandler-cache-seconds"]


def test_nothing_of_the_machine_that_made_the_site_is_in_it(site):
    home = str(Path.home())

    for file in site.folder.rglob("*.html"):
        text = file.read_text()
        assert str(ROOT) not in text, file.name
        assert f"{home}/" not in text, file.name


def test_every_subcommand_is_described_with_its_options(site):
    page = site.page("commands")

    for name, (one, _) in NbExchange.subcommands.items():
        section = page.sections[f"nbexchange-{name}"]
        for words in [*one.aliases, *one.flags]:
            for word in words if isinstance(words, tuple) else (words,):
                assert (f"-{word}" if len(word) == 1 else f"--{word}") in section, (name, word)


@pytest.mark.parametrize("name", NbExchange.subcommands)
def test_a_subcommand_tells_in_the_terminal_what_the_page_tells(site, name):
    done = subprocess.run(
        [sys.executable, "-m", "nbexchange", name, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    one, _ = NbExchange.subcommands[name]
    assert (one.__doc__ or "").partition("\n")[0] in " ".join(done.stdout.split())


def test_every_argument_of_the_hubs_side_is_told(site):
    said = site.page("hub").sections["all-arguments-of-configure"]

    arguments = set(configure.__code__.co_varnames[: configure.__code__.co_argcount])
    arguments |= set(configure.__kwdefaults__ or {})
    for name in arguments - {"c"}:
        assert name in said


# -- the HTTP reference


DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS = [
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method in ("get", "post", "delete", "put", "patch", "head", "options")
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_request_is_described_with_all_that_goes_in_and_comes_out(site, path, method):
    one = DOCUMENT["paths"][path][method]
    # Sphinx names the section after the label before it.
    said = site.page("http").sections[f"operation-{one['operationId']}".replace("_", "-")]

    assert said.lstrip().startswith(f"{method.upper()} {path}")
    for parameter in one.get("parameters", []):
        name = parameter["$ref"] if "$ref" in parameter else parameter["name"]
        assert real_name(name) in said
    for status, answer in one["responses"].items():
        assert f"\n{status} " in said
        found = answer
        if "$ref" in answer:
            found = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        for header in found.get("headers", {}):
            assert header in said
    for media in one.get("requestBody", {}).get("content", {}):
        assert media in said


def real_name(name: str) -> str:
    if not name.startswith("#"):
        return name
    found: str = DOCUMENT["components"]["parameters"][name.rpartition("/")[2]]["name"]
    return found


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_a_schema_is_described_with_every_key(site, name):
    said = site.page("http").sections[f"schema-{name.lower()}"]

    for key in DOCUMENT["components"]["schemas"][name].get("properties", {}):
        assert key in said
