"""`configure(c)` adds the exchange to the configuration in jupyterhub_config.py.

It adds to the existing configuration and replaces nothing, so the call comes last in the file.
Options that contradict each other raise ValueError when the hub starts.
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
"""The scopes that JupyterHub gives the token of a user's server by default."""

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
    """Let the users of this hub and their servers use the exchange.

    `url` is the address at which the hub's proxy reaches the service. With a `command`, the hub
    starts the service (at http://127.0.0.1:9000 if there is no `url`) and adds `environment` to its
    environment. Without a `command`, the service runs on its own, and the hub and the service have
    the same `api_token`. `name` is the service's name in the hub.

    `notebook_url` is the address of the exchange for a notebook server. The default is the hub's
    proxy, which is at http://proxy-public in Kubernetes, else at the hub's own address.

    `graders` are the courses whose instructors share an account, `grader-{course_id}`.

    With `lti=True`, users, courses and roles come from the LTI launches of an LMS:

    - `instructors` are the LTI roles in a course that make a user an instructor.
    - `platforms` maps issuers (1.3) and consumer keys (1.1) to names of your own. Keys with one
      name are one platform, so that its courses stay the same.
    - `organisations` maps an issuer or a consumer key to its org_id.
    - `course_id` returns the course id of a launch, or None if the launch does not belong to a
      course.
    - `launch_graders=False` creates no shared accounts.
    - `prefix_names=True` puts the org_id in front of account names, as in `2-ada`. Set it if there
      are several organisations or platforms, because two of them may have a user with the same
      name: True, with an organisation for each platform, or False if names never collide.

    Raises ValueError if the arguments contradict each other or the configuration in `c`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of the service. Use letters, digits, . _ -")
    if is_grader(name):
        raise ValueError(
            f"{name!r} cannot be the name of the service. Names that begin with grader- are "
            "reserved for shared accounts."
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
            "With c.JupyterHub.subdomain_host, the proxy routes by host names, which a notebook "
            "server may not be able to resolve. Set notebook_url, the address of the exchange for "
            "notebook servers."
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
        # Imported here, because the exchange imports this package without a hub.
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
                f"c.JupyterHub.services already has {name!r}, with a different {key}. Set it in "
                "one place only."
            )
    if service.get("command"):
        service.setdefault("url", f"http://127.0.0.1:{PORT}")
    _check_service(service, name)
    c.JupyterHub.services = services if existing is not None else [*services, service]


def _check_service(service: Mapping[str, Any], name: str) -> None:
    if not service.get("url"):
        raise ValueError(
            "The address of the service is missing. Pass command=[...] if the hub starts the "
            "service, or url='http://host:9000' and api_token if it runs on its own."
        )
    parts = urlsplit(service["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"url={service['url']!r} is not an address. Use one like http://host:9000."
        )
    if not service.get("command"):
        if service.get("environment"):
            raise ValueError(
                "environment= only applies to a service that the hub starts. Pass command= too."
            )
        if not service.get("api_token"):
            raise ValueError(
                f"The service {name!r} runs on its own, so it needs an api_token: the same here "
                "and in its own JUPYTERHUB_API_TOKEN. Create one with: openssl rand -hex 32"
            )


# -- rights


def _add_scopes(c: Any, access: str) -> None:
    """Let a server's token access the service. Both the user and the token need the scope."""
    roles = _list(c.JupyterHub, "load_roles")
    user = next((role for role in roles if role.get("name") == "user"), None)
    # JupyterHub 6 ignores extra_user_scopes if the role lists its scopes.
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
            f"c.JupyterHub.load_roles already has a role {role['name']!r}. Call configure() only "
            "once."
        )
    c.JupyterHub.load_roles = [*roles, dict(role)]


# -- the user's server


def _add_environment(c: Any, name: str, notebook_url: str | None) -> None:
    variables: dict[str, Any] = {
        # Functions, because KubeSpawner expands braces in a string.
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
    # If the proxy listens on all interfaces, its bind address cannot be called.
    host = bind_url.hostname
    everywhere = host in (None, "", "*", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)
    host = "127.0.0.1" if everywhere else f"[{host}]" if ":" in str(host) else host
    port = f":{bind_url.port}" if bind_url.port else ""
    return f"{bind_url.scheme}://{host}{port}{path}"


def _shared_accounts(spawner: Any) -> dict[str, str]:
    """course id -> address of formgrader in the shared account of its instructors, if any."""
    from jupyterhub import orm

    if is_grader(spawner.user.name):
        return {}
    # The address leads through the hub, which offers to start the server if it is not running.
    users = f"{spawner.hub.public_host}{spawner.hub.base_url}user"
    return {
        course_id: f"{users}/{quote(name, safe='')}/formgrader?path=courses/{quote(course_id)}"
        for course_id, role in courses_of_user(spawner.user).items()
        if role == INSTRUCTOR and orm.User.find(spawner.user.db, name := grader_for(course_id))
    }


# -- courses from this file, and courses from launches


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
            "graders= is for courses whose groups are in this file, but here the groups are set at "
            "login (lti=True or manage_groups). Remove graders=. With lti=True, the shared account "
            "of a course is created when its first instructor launches."
        )
    if not lti:
        used = [key for key, value in only_with_lti.items() if value]
        if used:
            raise ValueError(
                f"{', '.join(used)} only apply to LTI launches, but lti=True is missing. Add "
                "lti=True or remove them."
            )
        return
    if _mapping(c.JupyterHub, "load_groups"):
        raise ValueError(
            "c.JupyterHub.load_groups and lti=True cannot be used together, because JupyterHub "
            "takes groups from one place only. Add people to groups with its REST API instead."
        )
    if prefix_names and any(section.get("allowed_users") for section in _authenticators(c)):
        raise ValueError(
            "allowed_users and prefix_names=True cannot be used together, because JupyterHub "
            "checks allowed_users before an account name has its organisation. Remove "
            "allowed_users."
        )
    for section in _sections(c, "Authenticator", "manage_groups"):
        if section.get("manage_groups") is False:
            raise ValueError(
                "manage_groups is set to False, but lti=True needs it. Remove that setting."
            )


def _platform_keys(c: Any) -> set[str]:
    """The configured consumer keys and issuer, from which launches can come."""
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
                f"organisations: the org_id of {key!r} must be a whole number from 1 to "
                f"{LARGEST_ORGANISATION}."
            )
        if key in platforms.values() and key not in {*platforms, *keys}:
            raise ValueError(
                f"organisations: {key!r} is your name for a platform. Use the issuers and consumer "
                "keys that platforms= gives this name."
            )
    org_id_of: dict[str, int] = {}
    for key in {*keys, *platforms, *organisations}:
        platform, org_id = platforms.get(key, key), organisations.get(key, 1)
        if org_id_of.setdefault(platform, org_id) != org_id:
            raise ValueError(
                f"organisations: all issuers and consumer keys of the platform {platform!r} must "
                "have the same org_id. Otherwise its people and courses would exist twice."
            )


def _check_names(
    keys: set[str],
    platforms: Mapping[str, str],
    organisations: Mapping[str, int],
    *,
    prefix_names: bool | None,
) -> None:
    """Refuse platforms whose users may have the same name, and so would share one account."""
    if prefix_names is False:
        return
    # A platform that is not named belongs to organisation 1.
    if prefix_names is None and set(organisations.values()) - {1}:
        raise ValueError(
            "Two organisations may each have a user with the same name, and both users would share "
            "one account. Set prefix_names=True for accounts like 2-ada, or prefix_names=False if "
            "names never collide (e-mail addresses, for example)."
        )
    platforms_of: dict[int, set[str]] = {}
    for key in {*keys, *organisations}:
        platforms_of.setdefault(organisations.get(key, 1), set()).add(platforms.get(key, key))
    for org_id, alike in platforms_of.items():
        if len(alike) > 1:
            raise ValueError(
                f"The platforms {', '.join(sorted(alike))} of organisation {org_id} may have users "
                "with the same name, and these would share one account. If they are one platform, "
                "map the new key to the old one: platforms={'new': 'old'}. Otherwise, give each an "
                "organisation and set prefix_names=True, or set prefix_names=False if names never "
                "collide (e-mail addresses, for example)."
            )


def _add_launches(c: Any) -> None:
    # The authenticator's error page says what is wrong with a launch, but not what to do.
    if _TEMPLATES.is_dir():
        c.JupyterHub.template_paths = [*_list(c.JupyterHub, "template_paths"), str(_TEMPLATES)]
    c.Authenticator.manage_groups = True
    configured = {trait for section in _authenticators(c) for trait in section}
    # JupyterHub itself uses the same test for whether access is configured.
    if not any(trait.startswith("allow") or trait == "any_allow_config" for trait in configured):
        # The LMS decides who may launch. Without this, JupyterHub would let no user in.
        c.Authenticator.allow_all = True


# -- what is in `c` already


def _version() -> int:
    import jupyterhub

    return int(jupyterhub.version_info[0])


def _wrap(c: Any, base: str, trait: str, wrap: Callable[[Hook | None], Hook]) -> None:
    """Set a hook of ours, which calls the existing hook first."""
    for section in _sections(c, base, trait):
        setattr(section, trait, wrap(section.get(trait)))


def _sections(c: Any, base: str, trait: str) -> list[Any]:
    """`c.Spawner`, and each other section that sets this trait and so overrides it."""
    own = [
        section
        for name, section in c.items()
        if name != base and isinstance(section, Mapping) and trait in section
    ]
    return [c[base], *own]


def _authenticators(c: Any) -> list[Any]:
    """The sections of all authenticators, and that of the configured class, whatever its name."""
    used = c.JupyterHub.get("authenticator_class")
    names = {_name_of(used), *map(_name_of, getattr(used, "__mro__", ()))}
    return [
        section
        for name, section in c.items()
        if isinstance(section, Mapping) and (name.endswith("Authenticator") or name in names)
    ]


def _name_of(used: Any) -> str:
    """The class name of a class, or of the dotted path of one."""
    return str(getattr(used, "__name__", str(used).rpartition(".")[2]))


def _list(section: Any, trait: str) -> list[Any]:
    return list(_value(section, trait, []) or [])


def _mapping(section: Any, trait: str) -> dict[str, Any]:
    return dict(_value(section, trait, {}) or {})


def _value(section: Any, trait: str, default: Any) -> Any:
    """A trait's value. `c.X.trait.append(...)` on an unset trait leaves a LazyConfigValue."""
    value = section.get(trait, default)
    return value.get_value(default) if hasattr(value, "get_value") else value


async def _result(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value
