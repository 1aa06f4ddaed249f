"""`configure(c)`: its additions, the settings that it keeps, its refusals, and its imports."""

from __future__ import annotations

import ast
import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jupyterhub
import pytest
from traitlets.config import Config

from nbexchange.hub import ASSISTANTS, INSTRUCTORS, configure, courses_of_user, role_of
from tests.support.hub import python_of

FOLDER = Path(__file__).parents[2] / "nbexchange" / "hub"
ACCESS = "access:services!service=nbexchange"
USUAL = {"url": "http://exchange:9000", "api_token": "a-token-of-both"}


@pytest.fixture(params=[6, 5], ids=["hub-6", "hub-5"])
def version(request, monkeypatch):
    monkeypatch.setattr(jupyterhub, "version_info", (request.param, 5, 0, "", ""))
    return request.param


def configured(c=None, **options):
    c = Config() if c is None else c
    configure(c, **{**USUAL, **options})
    return c


def service(c, name="nbexchange"):
    (found,) = [one for one in c.JupyterHub.services if one["name"] == name]
    return found


def role(c, name):
    (found,) = [one for one in c.JupyterHub.load_roles if one["name"] == name]
    return found


def spawner(*groups, name="ada", **more):
    user = SimpleNamespace(name=name, groups=[SimpleNamespace(name=group) for group in groups])
    return SimpleNamespace(user=user, **more)


# -- the folder by itself


def test_the_folder_imports_only_the_standard_library_and_what_a_hub_has():
    allowed = {*sys.stdlib_module_names, "jupyterhub", "tornado"}
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module] if node.level == 0 else []
                assert node.level < 2, f"{file.name} imports from outside of the folder"
            else:
                continue
            for name in names:
                assert name.partition(".")[0] in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize("number", [6, 5])
def test_the_folder_is_enough_under_any_name_where_there_is_no_nbexchange(tmp_path, number):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(FOLDER, tmp_path / "campus" / "courses", ignore=ignored)
    (tmp_path / "campus" / "__init__.py").touch()
    program = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["nbexchange"] = None
from traitlets.config import Config
from campus.courses import configure
c = Config()
configure(c, "http://exchange:9000", api_token="x", lti=True)
print(c.Authenticator.post_auth_hook.__module__)
"""
    said = subprocess.run(
        [python_of(number), "-I", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.stdout == "campus.courses.login\n", said.stderr


def test_the_exchange_reads_names_without_a_hub(tmp_path):
    program = """
import sys
sys.modules["jupyterhub"] = None
from nbexchange.hub.naming import parse_group
print(parse_group("nbgrader-a"))
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert said.stdout == "('a', 'Student')\n", said.stderr


# -- the service


def test_a_service_that_the_hub_starts_needs_a_command_alone():
    c = Config()
    configure(c, command=["nbexchange", "--config=x.py"], environment={"A": "b"})

    assert service(c) == {
        "name": "nbexchange",
        "display": False,
        "command": ["nbexchange", "--config=x.py"],
        "environment": {"A": "b"},
        "url": "http://127.0.0.1:9000",
    }


def test_a_command_may_be_one_word():
    c = Config()
    configure(c, command="nbexchange")

    assert service(c)["command"] == ["nbexchange"]


def test_a_service_that_stands_alone_has_an_address_and_a_token():
    assert service(configured()) == {"name": "nbexchange", "display": False, **USUAL}


def test_an_entry_that_is_there_already_is_completed():
    """As zero-to-jupyterhub makes one, with the token of its chart."""
    c = Config()
    c.JupyterHub.services = [{"name": "cull"}, {"name": "nbexchange", "api_token": "of-the-chart"}]

    configure(c, "http://exchange:9000")

    assert service(c) == {
        "name": "nbexchange",
        "api_token": "of-the-chart",
        "url": "http://exchange:9000",
    }
    assert service(c, "cull") == {"name": "cull"}


def test_the_service_may_read_the_titles_of_courses_and_no_more():
    assert role(configured(), "nbexchange-nbexchange-reads-groups") == {
        "name": "nbexchange-nbexchange-reads-groups",
        "description": "Titles and organisations of courses",
        "services": ["nbexchange"],
        "scopes": ["read:groups"],
    }


# -- rights


def test_people_and_their_servers_may_use_the_exchange(version):
    c = configured()

    if version == 6:
        assert c.JupyterHub.extra_user_scopes == {ACCESS}
        assert "user" not in [one["name"] for one in c.JupyterHub.load_roles]
    else:
        assert role(c, "user")["scopes"] == ["self", ACCESS]
        assert "extra_user_scopes" not in c.JupyterHub
    assert c.Spawner.server_token_scopes == [
        "users:activity!user",
        "access:servers!server",
        ACCESS,
    ]


def test_scopes_that_are_there_already_are_kept(version):
    c = Config()
    c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", "read:hub"]}, {"name": "other"}]
    c.JupyterHub.extra_user_scopes = {"list:services"}
    c.Spawner.server_token_scopes = ["users:activity!user"]
    c.MySpawner.server_token_scopes = ["inherit"]

    configured(c)

    assert role(c, "user")["scopes"] == ["self", "read:hub", ACCESS]
    assert role(c, "other") == {"name": "other"}
    assert c.JupyterHub.extra_user_scopes == {"list:services"}
    assert c.Spawner.server_token_scopes == ["users:activity!user", ACCESS]
    assert c.MySpawner.server_token_scopes == ["inherit"]


def test_scopes_that_are_computed_are_computed_still():
    async def later(spawner):
        return [f"read:users!user={spawner.user.name}"]

    for before, wanted in (
        (lambda _: ["inherit"], ["inherit"]),
        (lambda _: [], ["users:activity!user", "access:servers!server", ACCESS]),
        (later, ["read:users!user=ada", ACCESS]),
    ):
        c = Config()
        c.Spawner.server_token_scopes = before
        scopes = configured(c).Spawner.server_token_scopes
        assert asyncio.run(scopes(spawner())) == wanted


def test_appended_values_are_kept():
    c = Config()
    c.JupyterHub.services.append({"name": "first"})
    c.JupyterHub.load_roles.append({"name": "first"})
    c.Spawner.environment.update({"A": "b"})

    configured(c)
    c.JupyterHub.services.append({"name": "last"})
    c.JupyterHub.load_roles.append({"name": "last"})

    assert [one["name"] for one in c.JupyterHub.services] == ["first", "nbexchange", "last"]
    assert {"first", "last"} < {one["name"] for one in c.JupyterHub.load_roles}
    assert c.Spawner.environment["A"] == "b"


# -- the environment of the user's server


def environment(c, spawner, section="Spawner"):
    return {
        name: value(spawner) if callable(value) else value
        for name, value in c[section].environment.items()
    }


def test_a_server_gets_the_courses_and_the_address():
    c = configured(notebook_url="http://proxy-public/services/nbexchange/")

    said = environment(c, spawner("formgrade-a", "nbgrader-b", "staff", name="grader-a"))

    assert said["NBEXCHANGE_URL"] == "http://proxy-public/services/nbexchange/"
    assert json.loads(said["NBEXCHANGE_COURSES"]) == {"a": "Instructor", "b": "Student"}
    assert all(isinstance(value, str) for value in said.values())


def test_the_environment_of_a_server_is_computed():
    """KubeSpawner expands braces in a string, and must not expand those of JSON."""
    assert all(callable(value) for value in configured().Spawner.environment.values())


@pytest.mark.parametrize(
    ("bind_url", "in_kubernetes", "url"),
    [
        ("http://:8000", False, "http://127.0.0.1:8000/services/nbexchange/"),
        ("http://0.0.0.0:8000/", False, "http://127.0.0.1:8000/services/nbexchange/"),
        ("http://*:8000/", False, "http://127.0.0.1:8000/services/nbexchange/"),
        ("http://[::]:8000/", False, "http://127.0.0.1:8000/services/nbexchange/"),
        ("http://[fd00::1]:8000/", False, "http://[fd00::1]:8000/services/nbexchange/"),
        ("https://10.0.0.7/hubs/a/", False, "https://10.0.0.7/hubs/a/services/nbexchange/"),
        ("http://:8000/hubs/a/", True, "http://proxy-public/hubs/a/services/nbexchange/"),
    ],
)
def test_a_server_reaches_the_exchange_through_the_proxy(monkeypatch, bind_url, in_kubernetes, url):
    app = SimpleNamespace(instance=lambda: SimpleNamespace(bind_url=bind_url))
    monkeypatch.setitem(sys.modules, "jupyterhub.app", SimpleNamespace(JupyterHub=app))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if in_kubernetes:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

    assert configured().Spawner.environment["NBEXCHANGE_URL"](spawner()) == url


def test_the_operators_own_environment_wins_and_stays():
    c = Config()
    c.Spawner.environment = {"NBEXCHANGE_URL": "http://elsewhere/", "A": "b"}
    c.KubeSpawner.environment = {"C": "d"}

    configured(c)

    assert c.Spawner.environment["NBEXCHANGE_URL"] == "http://elsewhere/"
    assert c.Spawner.environment["A"] == "b"
    assert c.KubeSpawner.environment["C"] == "d"
    assert "NBEXCHANGE_COURSES" in c.KubeSpawner.environment


# -- roles


def test_role_of_says_the_role_in_a_course_or_the_greatest_of_all():
    user = spawner("formgrade-a", "nbgrader-b", "staff").user

    assert role_of(user, "a") == "Instructor"
    assert role_of(user, "b") == "Student"
    assert role_of(user, "c") is None
    assert role_of(user) == "Instructor"
    assert role_of(spawner("nbgrader-b").user) == "Student"
    assert role_of(spawner("staff").user) is None
    assert courses_of_user(user) == {"a": "Instructor", "b": "Student"}


# -- launches and shared accounts


def test_launches_change_nothing_of_the_authenticator_unless_asked_for():
    c = configured()

    assert "Authenticator" not in c or not c.Authenticator


def test_launches_switch_on_what_they_need():
    c = configured(lti=True)

    assert c.Authenticator.manage_groups is True
    assert c.Authenticator.allow_all is True
    assert callable(c.Authenticator.post_auth_hook)
    assert Path(c.JupyterHub.template_paths[0], "error.html").is_file()


@pytest.mark.parametrize(
    ("section", "trait", "value"),
    [
        ("Authenticator", "allowed_users", {"ada"}),
        ("Authenticator", "allow_existing_users", True),
        ("LTI13Authenticator", "allow_all", False),
        ("LocalAuthenticator", "allowed_groups", {"staff"}),
        ("ByPlatform", "allowed_teams", {"staff"}),
    ],
)
def test_the_administrators_choice_of_allowed_users_stays(section, trait, value):
    c = Config()
    c.JupyterHub.authenticator_class = type("ByPlatform", (), {})
    c[section][trait] = value

    configured(c, lti=True)

    assert c[section][trait] == value
    assert "allow_all" not in c.Authenticator


def test_a_hook_of_the_authenticators_own_section_is_wrapped_too():
    """A section of a class overrides that of its base, so ours would never be asked."""
    c = Config()
    c.LTI13Authenticator.post_auth_hook = before = object()
    c.JupyterHub.template_paths = ["mine"]

    configured(c, lti=True)

    assert c.LTI13Authenticator.post_auth_hook is not before
    assert callable(c.LTI13Authenticator.post_auth_hook)
    assert c.JupyterHub.template_paths[0] == "mine"


def test_graders_of_known_courses_are_members_and_shared():
    c = Config()
    c.JupyterHub.load_groups = {
        "formgrade-a": ["ada"],
        "formgrade-b": {"users": ["bob"], "properties": {"title": "B"}},
        "nbgrader-a": {"users": ["zoe"]},
    }

    configured(c, graders=["a", "b", "Ψυχή"])

    assert c.JupyterHub.load_groups == {
        "formgrade-a": {"users": ["ada", "grader-a"]},
        "formgrade-b": {"users": ["bob", "grader-b"], "properties": {"title": "B"}},
        "formgrade-Ψυχή": {"users": ["grader-ψυχή"]},
        "nbgrader-a": {"users": ["zoe"]},
    }
    assert role(c, "nbexchange-grader-a")["groups"] == ["formgrade-a"]
    assert role(c, "nbexchange-grader-a")["scopes"] == [
        "access:servers!user=grader-a",
        "servers!user=grader-a",
    ]
    names = [one["name"] for one in c.JupyterHub.load_roles]
    assert all(name.isascii() for name in names)
    assert len(set(names)) == len(names)


REFUSED = {
    "no address": ({"url": None, "api_token": None}, "The address of the service is missing"),
    "no token": ({"api_token": None}, "openssl rand -hex 32"),
    "no scheme": ({"url": "exchange:9000"}, "is not an address"),
    "environment without command": ({"environment": {"A": "b"}}, "Pass command= too"),
    "a name with a space": ({"name": "my exchange"}, "cannot be the name of the service"),
    "a name like a shared account's": (
        {"name": "Grader-x", "graders": ["x-reads-groups"]},
        "Names that begin with grader- are reserved for shared accounts",
    ),
    "launches without lti": ({"course_id": str}, "course_id only apply to LTI launches"),
    "roles without lti": ({"instructors": INSTRUCTORS - ASSISTANTS}, "lti=True is missing"),
    "both kinds of graders": ({"graders": ["a"], "lti": True}, "first instructor launches"),
    "one account for two courses": ({"graders": ["CS1", "cs1"]}, "would share the account"),
    "no course id": ({"graders": ["a b"]}, "cannot be a course id"),
    "names that may meet": (
        {"lti": True, "organisations": {"x": 1, "y": 2}},
        "Set prefix_names=True",
    ),
    "names that may meet those of the usual organisation": (
        {"lti": True, "organisations": {"x": 7}},
        "Set prefix_names=True",
    ),
    "an organisation of our own name for a platform": (
        {"lti": True, "platforms": {"x": "campus"}, "organisations": {"campus": 2}},
        "'campus' is your name for a platform. Use the issuers and consumer keys",
    ),
    "one platform in two organisations": (
        {"lti": True, "platforms": {"x": "campus", "y": "campus"}, "organisations": {"y": 2}},
        "of the platform 'campus' must have the same org_id",
    ),
    "organisation 0": ({"lti": True, "organisations": {"x": 0}}, "whole number from 1"),
    "organisation as text": ({"lti": True, "organisations": {"x": "2"}}, "whole number from 1"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_invalid_options_are_refused_with_an_explanation(options, words):
    with pytest.raises(ValueError, match=words):
        configured(**options)


def contradiction(section, trait, value):
    c = Config()
    c[section][trait] = value
    return c


CONTRADICTIONS = {
    "groups of the file": (
        contradiction("JupyterHub", "load_groups", {"a": {}}),
        "load_groups and lti=True cannot be used together",
    ),
    "no groups": (contradiction("Authenticator", "manage_groups", False), "manage_groups is set"),
    "no groups of the class": (
        contradiction("LTI11Authenticator", "manage_groups", False),
        "manage_groups is set",
    ),
    "hosts of their own": (
        contradiction("JupyterHub", "subdomain_host", "https://hub.example"),
        "Set notebook_url",
    ),
    "another address": (
        contradiction("JupyterHub", "services", [{"name": "nbexchange", "url": "http://other:1"}]),
        "with a different url. Set it in one place only",
    ),
}


@pytest.mark.parametrize(("c", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_options_that_contradict_the_rest_of_the_file_are_refused_with_an_explanation(c, words):
    with pytest.raises(ValueError, match=words):
        configured(c, lti=True)


def of_two_platforms():
    c = Config()
    c.LTI11Authenticator.consumers = {"moodle": "a secret", "edx": "another"}
    c.LTI13Authenticator.issuer = "https://moodle.example"
    return c


TWO = {"moodle": 2, "https://moodle.example": 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "platforms edx, https://moodle.example, moodle of organisation 1"),
        ({"prefix_names": True}, "platforms edx, https://moodle.example, moodle of organisation 1"),
        (
            {"organisations": TWO, "prefix_names": True},
            "platforms https://moodle.example, moodle of organisation 2",
        ),
        (
            {"organisations": {"edx": 2}, "platforms": {"edx": "moodle"}, "prefix_names": True},
            "of the platform 'moodle' must have the same org_id",
        ),
    ],
    ids=["unsaid", "one organisation", "two of one organisation", "one in two organisations"],
)
def test_names_of_two_platforms_may_meet_in_one_organisation_too(options, words):
    with pytest.raises(ValueError, match=words):
        configured(of_two_platforms(), lti=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix_names": False},
        {"platforms": dict.fromkeys(["moodle", "edx", "https://moodle.example"], "m")},
        {"platforms": {"edx": "moodle", "https://moodle.example": "moodle"}},
        {
            "platforms": {"https://moodle.example": "moodle"},
            "organisations": TWO,
            "prefix_names": True,
        },
    ],
    ids=["they never meet", "one platform", "new keys of an old one", "two organisations"],
)
def test_platforms_whose_names_do_not_meet_are_taken(options):
    configured(of_two_platforms(), lti=True, **options)


@pytest.mark.parametrize("name", ["lti13", "ltiauthenticator.lti13.auth.LTI13Authenticator"])
def test_a_section_of_a_class_that_is_not_used_names_no_platform(name):
    c = of_two_platforms()
    c.JupyterHub.authenticator_class = name

    configured(c, lti=True)


def test_allowed_users_and_prefixed_names_cannot_be_used_together():
    with pytest.raises(ValueError, match="Remove allowed_users"):
        configured(
            contradiction("Authenticator", "allowed_users", {"ada"}), lti=True, prefix_names=True
        )


def test_to_configure_twice_is_refused():
    with pytest.raises(ValueError, match="Call configure\\(\\) only once"):
        configured(configured())
