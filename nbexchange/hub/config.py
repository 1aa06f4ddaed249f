"""`configure(c)`: what jupyterhub_config.py has to say for the exchange to work.

It adds to what is configured already and replaces none of it, so it comes last in the file. What
cannot go together is refused at the start, in words.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .graders import check_graders, grader_groups, grader_roles
from .lti import INSTRUCTORS, Launch
from .naming import INSTRUCTOR, LARGEST_ORGANISATION, grader_for, is_grader
from .people import courses_of_user

PORT = 9000

_SERVER_SCOPES = ("users:activity!user", "access:servers!server")
"""What the token of a user's server has by itself."""

_TEMPLATES = Path(__file__).parent / "templates"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Hook = Callable[..., Any]


def configure(
    c: Any,
    url: str | None = None,
    *,
    command: str | Sequence[str] | None = None,
    api_token: str | None = None,
    environment: Mapping[str, str] | None = None,
    name: str = "nbexchange",
    notebook_url: str | None = None,
    graders: Iterable[str] | None = None,
    lti: bool = False,
    instructors: Collection[str] = INSTRUCTORS,
    platforms: Mapping[str, str] | None = None,
    organisations: Mapping[str, int] | None = None,
    course_id: Callable[[Launch], str | None] | None = None,
    launch_graders: bool = True,
    prefix_names: bool | None = None,
) -> None:
    """Let people and the servers of this hub use the exchange.

    `url` is where the hub's proxy finds the service. With a `command` the hub starts it (at
    http://127.0.0.1:9000 if there is no `url`), with more `environment` if given. Without, the
    service stands alone, and both have the same `api_token`. `name` is its name in the hub.

    `notebook_url` is the address of the exchange for a notebook server. Usually that is the hub's
    proxy, which is at http://proxy-public in Kubernetes, else at the hub's own address.

    `graders` are the courses whose instructors share an account, `grader-{course_id}`.

    With `lti=True` the launches of a learning platform bring people, courses and roles:
    `instructors` are the roles in a course that make an instructor. `platforms` names issuers (1.3)
    and consumer keys (1.1): two with one name are one platform, so that its courses stay the same.
    `organisations` is the org_id of an issuer or a consumer key. `course_id` gives the course id of
    a launch, or None where it is no course. `launch_graders=False` makes no shared accounts.
    With `prefix_names` accounts have the org_id before their name, as `2-ada`. It has to be said
    where there are several organisations or platforms, two of which may have the same name: True,
    with an organisation for each platform, or False where names never meet.

    Raises ValueError where this contradicts itself or what `c` has.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of the service: use letters, digits, . _ -")
    if is_grader(name):
        raise ValueError(
            f"{name!r} cannot be the name of the service: names that begin with grader- are for "
            "shared accounts"
        )
    shared = check_graders(graders or ())
    _check_launches(
        c,
        lti=lti,
        graders=shared,
        prefix_names=bool(prefix_names),
        only_with_lti={
            "instructors": instructors is not INSTRUCTORS,
            "platforms": platforms,
            "organisations": organisations,
            "course_id": course_id,
            "prefix_names": prefix_names,
        },
    )
    if lti:
        keys = _platform_keys(c)
        _check_organisations(keys, platforms or {}, organisations or {})
        _check_names(keys, platforms or {}, organisations or {}, prefix_names=prefix_names)
    if _value(c.JupyterHub, "subdomain_host", "") and not notebook_url:
        raise ValueError(
            "with c.JupyterHub.subdomain_host the proxy goes by host names, which a notebook "
            "server may not know: say notebook_url, the address of the exchange for notebooks"
        )
    _add_service(c, name, url, command, api_token, environment)
    _add_scopes(c, f"access:services!service={name}")
    _add_role(
        c,
        {
            "name": f"nbexchange-{name.lower()}-reads-groups",
            "description": "Titles and organisations of courses",
            "services": [name],
            "scopes": ["read:groups"],
        },
    )
    _add_environment(c, name, notebook_url)
    if shared:
        _add_graders(c, shared)
    if lti:
        # Here, because the exchange reads this module's names without a hub.
        from .login import LoginRules, groups_hook

        _add_launches(c)
        rules = LoginRules(
            instructors=frozenset(instructors),
            platforms=platforms or {},
            organisations=organisations or {},
            course_id=course_id,
            graders=launch_graders,
            prefix_names=bool(prefix_names),
        )
        _wrap(c, "Authenticator", "post_auth_hook", lambda before: groups_hook(rules, before))
    elif shared:
        from .login import no_grader_hook

        _wrap(c, "Authenticator", "post_auth_hook", no_grader_hook)


# -- the service


def _add_service(
    c: Any,
    name: str,
    url: str | None,
    command: str | Sequence[str] | None,
    api_token: str | None,
    environment: Mapping[str, str] | None,
) -> None:
    services = _list(c.JupyterHub, "services")
    existing = next((service for service in services if service.get("name") == name), None)
    service = existing if existing is not None else {"name": name, "display": False}
    options = {
        "url": url,
        "command": [command] if isinstance(command, str) else list(command or ()) or None,
        "api_token": api_token,
        "environment": dict(environment) if environment else None,
    }
    for key, value in options.items():
        if value is not None and service.setdefault(key, value) != value:
            raise ValueError(
                f"c.JupyterHub.services has {name!r} already, with another {key}; say it in one "
                "place"
            )
    if service.get("command"):
        service.setdefault("url", f"http://127.0.0.1:{PORT}")
    _check_service(service, name)
    c.JupyterHub.services = services if existing is not None else [*services, service]


def _check_service(service: Mapping[str, Any], name: str) -> None:
    if not service.get("url"):
        raise ValueError(
            "configure() needs to know where the service is: command=[...] for one that the hub "
            "starts, or url='http://host:9000' and api_token for one that stands alone"
        )
    parts = urlsplit(service["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url={service['url']!r} is no address: it is like http://host:9000")
    if not service.get("command"):
        if service.get("environment"):
            raise ValueError("environment= is for a service that the hub starts, with command=")
        if not service.get("api_token"):
            raise ValueError(
                f"the service {name!r} stands alone and needs an api_token, the same here and in "
                "its own JUPYTERHUB_API_TOKEN; make one with: openssl rand -hex 32"
            )


# -- rights


def _add_scopes(c: Any, access: str) -> None:
    """A server's token may be shown to the service, which takes the person and the token."""
    roles = _list(c.JupyterHub, "load_roles")
    user = next((role for role in roles if role.get("name") == "user"), None)
    # Where the role says its scopes, JupyterHub 6 does not look at extra_user_scopes.
    if _version() >= 6 and (user is None or "scopes" not in user):
        c.JupyterHub.extra_user_scopes = {*_list(c.JupyterHub, "extra_user_scopes"), access}
    elif user is None:
        _add_role(c, {"name": "user", "scopes": ["self", access]})
    else:
        user["scopes"] = _with(user.get("scopes", ["self"]), access)
        c.JupyterHub.load_roles = roles
    for section in _sections(c, "Spawner", "server_token_scopes"):
        scopes = section.get("server_token_scopes")
        if callable(scopes):
            section.server_token_scopes = _with_scope(scopes, access)
        else:
            granted = _list(section, "server_token_scopes") or _SERVER_SCOPES
            section.server_token_scopes = _with(granted, access)


def _with(scopes: Iterable[str], access: str) -> list[str]:
    present = list(scopes)
    return present if access in present or "inherit" in present else [*present, access]


def _with_scope(before: Hook, access: str) -> Hook:
    async def scopes(spawner: Any) -> list[str]:
        return _with(await _result(before(spawner)) or _SERVER_SCOPES, access)

    return scopes


def _add_role(c: Any, role: Mapping[str, Any]) -> None:
    roles = _list(c.JupyterHub, "load_roles")
    if any(existing.get("name") == role["name"] for existing in roles):
        raise ValueError(
            f"c.JupyterHub.load_roles has a role {role['name']!r} already; call configure() once"
        )
    c.JupyterHub.load_roles = [*roles, dict(role)]


# -- the user's server


def _add_environment(c: Any, name: str, notebook_url: str | None) -> None:
    variables: dict[str, Any] = {
        # Functions, because KubeSpawner fills in the braces of a text.
        "NBEXCHANGE_URL": lambda spawner: notebook_url or _through_the_proxy(spawner, name),
        "NBEXCHANGE_COURSES": lambda spawner: json.dumps(courses_of_user(spawner.user)),
        "NBEXCHANGE_GRADERS": lambda spawner: json.dumps(_shared_accounts(spawner)),
    }
    for section in _sections(c, "Spawner", "environment"):
        section.environment = {**variables, **_mapping(section, "environment")}


def _through_the_proxy(spawner: Any, name: str) -> str:
    from jupyterhub.app import JupyterHub

    bind_url = urlsplit(JupyterHub.instance().bind_url)
    path = f"{bind_url.path.rstrip('/')}/services/{name}/"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return f"http://proxy-public{path}"
    # The proxy may listen everywhere, which is no address to call.
    host = bind_url.hostname
    everywhere = host in (None, "", "*", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)
    host = "127.0.0.1" if everywhere else f"[{host}]" if ":" in str(host) else host
    port = f":{bind_url.port}" if bind_url.port else ""
    return f"{bind_url.scheme}://{host}{port}{path}"


def _shared_accounts(spawner: Any) -> dict[str, str]:
    """course id -> formgrader of the account that its instructors share, if they do."""
    from jupyterhub import orm

    if is_grader(spawner.user.name):
        return {}
    # By way of the hub, which also knows what to do when that server is not running.
    users = f"{spawner.hub.public_host}{spawner.hub.base_url}user"
    return {
        course_id: f"{users}/{quote(name, safe='')}/formgrader?path=courses/{quote(course_id)}"
        for course_id, role in courses_of_user(spawner.user).items()
        if role == INSTRUCTOR and orm.User.find(spawner.user.db, name := grader_for(course_id))
    }


# -- courses that are known here, and those that come by launch


def _add_graders(c: Any, courses: Iterable[str]) -> None:
    courses = list(courses)
    for role in grader_roles(courses):
        _add_role(c, role)
    groups = _mapping(c.JupyterHub, "load_groups")
    for group, account in grader_groups(courses).items():
        existing = groups.get(group, {})
        contents = dict(existing) if isinstance(existing, Mapping) else {"users": list(existing)}
        contents["users"] = [*contents.get("users", []), account]
        groups[group] = contents
    c.JupyterHub.load_groups = groups


def _check_launches(
    c: Any,
    *,
    lti: bool,
    graders: Sequence[str],
    prefix_names: bool,
    only_with_lti: Mapping[str, object],
) -> None:
    manages = any(
        section.get("manage_groups") is True
        for section in _sections(c, "Authenticator", "manage_groups")
    )
    if graders and (lti or manages):
        raise ValueError(
            "graders= names courses whose groups this file keeps, but here they come at login "
            "(lti=True or manage_groups); with lti=True the shared account of a course is made at "
            "its first instructor's launch"
        )
    if not lti:
        used = [key for key, value in only_with_lti.items() if value]
        if used:
            raise ValueError(f"{', '.join(used)} say how to read launches, and lti=True is missing")
        return
    if _mapping(c.JupyterHub, "load_groups"):
        raise ValueError(
            "c.JupyterHub.load_groups and lti=True cannot go together: JupyterHub takes groups "
            "from one place; put people into groups by its REST API instead"
        )
    if prefix_names and any(section.get("allowed_users") for section in _authenticators(c)):
        raise ValueError(
            "allowed_users and prefix_names=True cannot go together: who may come in is decided "
            "before an account has its organisation; leave allowed_users out"
        )
    for section in _sections(c, "Authenticator", "manage_groups"):
        if section.get("manage_groups") is False:
            raise ValueError("manage_groups is set to False, and lti=True needs it")


def _platform_keys(c: Any) -> set[str]:
    """The consumer keys and the issuer that launches can come from, as far as the file says."""
    name = _name_of(c.JupyterHub.get("authenticator_class")).lower()
    keys: set[str] = set()
    for section in _authenticators(c):
        if name not in ("lti13", "lti13authenticator"):
            keys |= {*_mapping(section, "consumers")}
        if name not in ("lti11", "lti11authenticator"):
            keys |= {section.get("issuer") or ""} - {""}
    return keys


def _check_organisations(
    keys: set[str], platforms: Mapping[str, str], organisations: Mapping[str, int]
) -> None:
    for key, org_id in organisations.items():
        is_number = isinstance(org_id, int) and not isinstance(org_id, bool)
        if not is_number or not 1 <= org_id <= LARGEST_ORGANISATION:
            raise ValueError(
                f"organisations: {key!r} has to be a whole number from 1 to {LARGEST_ORGANISATION}"
            )
        if key in platforms.values() and key not in {*platforms, *keys}:
            raise ValueError(
                f"organisations: {key!r} is your name for a platform; say the issuers and the "
                "consumer keys that platforms= calls so"
            )
    org_id_of: dict[str, int] = {}
    for key in {*keys, *platforms, *organisations}:
        platform, org_id = platforms.get(key, key), organisations.get(key, 1)
        if org_id_of.setdefault(platform, org_id) != org_id:
            raise ValueError(
                f"organisations: all issuers and consumer keys of the platform {platform!r} have "
                "to be of one organisation, or people and courses would be there twice"
            )


def _check_names(
    keys: set[str],
    platforms: Mapping[str, str],
    organisations: Mapping[str, int],
    *,
    prefix_names: bool | None,
) -> None:
    """Two platforms may both have somebody with the same name, who would share one account."""
    if prefix_names is False:
        return
    # A platform that is not named belongs to organisation 1.
    if prefix_names is None and set(organisations.values()) - {1}:
        raise ValueError(
            "two organisations may both have somebody with the same name, and would share one "
            "account: say prefix_names=True for accounts like 2-ada, or prefix_names=False if "
            "names never meet (e-mail addresses, for example)"
        )
    platforms_of: dict[int, set[str]] = {}
    for key in {*keys, *organisations}:
        platforms_of.setdefault(organisations.get(key, 1), set()).add(platforms.get(key, key))
    for org_id, alike in platforms_of.items():
        if len(alike) > 1:
            raise ValueError(
                f"the platforms {', '.join(sorted(alike))} of organisation {org_id} may all have "
                "somebody with the same name, who would share one account. If they are one, call "
                "a new key as the old one, platforms={'new': 'old'}; else give each an "
                "organisation and say prefix_names=True, or say prefix_names=False if names never "
                "meet (e-mail addresses, for example)"
            )


def _add_launches(c: Any) -> None:
    # The authenticator's words say what is wrong with a launch, and not what to do.
    if _TEMPLATES.is_dir():
        c.JupyterHub.template_paths = [*_list(c.JupyterHub, "template_paths"), str(_TEMPLATES)]
    c.Authenticator.manage_groups = True
    configured = {trait for section in _authenticators(c) for trait in section}
    # As JupyterHub itself tells whether anybody has said who may come in.
    if not any(trait.startswith("allow") or trait == "any_allow_config" for trait in configured):
        # Who may come in is the learning platform's business; without this nobody may.
        c.Authenticator.allow_all = True


# -- what is in `c` already


def _version() -> int:
    import jupyterhub

    return int(jupyterhub.version_info[0])


def _wrap(c: Any, base: str, trait: str, wrap: Callable[[Hook | None], Hook]) -> None:
    """Ours, which calls the hook that was there before it."""
    for section in _sections(c, base, trait):
        setattr(section, trait, wrap(section.get(trait)))


def _sections(c: Any, base: str, trait: str) -> list[Any]:
    """`c.Spawner`, and each other section that says this for itself, and so overrides it."""
    own = [
        section
        for name, section in c.items()
        if name != base and isinstance(section, Mapping) and trait in section
    ]
    return [c[base], *own]


def _authenticators(c: Any) -> list[Any]:
    """The sections of all authenticators; of the one that is used also if it has another name."""
    used = c.JupyterHub.get("authenticator_class")
    names = {_name_of(used), *map(_name_of, getattr(used, "__mro__", ()))}
    return [
        section
        for name, section in c.items()
        if isinstance(section, Mapping) and (name.endswith("Authenticator") or name in names)
    ]


def _name_of(used: Any) -> str:
    """Of a class, or of the text that names one."""
    return str(getattr(used, "__name__", str(used).rpartition(".")[2]))


def _list(section: Any, trait: str) -> list[Any]:
    return list(_value(section, trait, []) or [])


def _mapping(section: Any, trait: str) -> dict[str, Any]:
    return dict(_value(section, trait, {}) or {})


def _value(section: Any, trait: str, default: Any) -> Any:
    """As `c.X.trait.append(...)` on something that was not set leaves a note of what to do."""
    value = section.get(trait, default)
    return value.get_value(default) if hasattr(value, "get_value") else value


async def _result(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value
