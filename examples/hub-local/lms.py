"""A simulated learning management system: enough of LTI 1.1 and 1.3 to launch into a JupyterHub.

`Platform(hub_url)` is a small web server with users, courses and buttons. It generates its key when
it starts. It has no login: each button launches as the user that it names.

Tests can build and change the messages without the server: `form_of_11`, `claims_of_13` and
`id_token`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from oauthlib.oauth1 import SIGNATURE_TYPE_BODY, Client
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

CLAIM = "https://purl.imsglobal.org/spec/lti/claim/"
CLAIMS_OF_OPENID = frozenset(
    [
        "aud",
        "azp",
        "email",
        "exp",
        "family_name",
        "given_name",
        "iat",
        "iss",
        "name",
        "nonce",
        "sub",
    ]
)
IN_THE_COURSE = "http://purl.imsglobal.org/vocab/lis/v2/membership"
IN_THE_INSTITUTION = "http://purl.imsglobal.org/vocab/lis/v2/institution/person"

ROLES_OF_13 = {
    "instructor": [f"{IN_THE_COURSE}#Instructor", f"{IN_THE_INSTITUTION}#Instructor"],
    "assistant": [
        f"{IN_THE_COURSE}#Instructor",
        f"{IN_THE_COURSE}/Instructor#TeachingAssistant",
    ],
    "student": [f"{IN_THE_COURSE}#Learner", f"{IN_THE_INSTITUTION}#Student"],
    # An instructor in the institution, and a student in this course.
    "professor who learns": [f"{IN_THE_COURSE}#Learner", f"{IN_THE_INSTITUTION}#Instructor"],
    "professor from outside": [f"{IN_THE_INSTITUTION}#Instructor"],
    "observer": [f"{IN_THE_COURSE}#Mentor"],
}

ROLES_OF_11 = {
    "instructor": "Instructor,urn:lti:instrole:ims/lis/Instructor",
    "assistant": "urn:lti:role:ims/lis/TeachingAssistant",
    "student": "Learner",
    "professor who learns": "urn:lti:instrole:ims/lis/Instructor,urn:lti:role:ims/lis/Learner",
    "professor from outside": "urn:lti:instrole:ims/lis/Instructor",
    "observer": "urn:lti:role:ims/lis/Mentor",
}


@dataclass(frozen=True)
class Person:
    id: str
    name: str

    @property
    def email(self) -> str:
        return f"{self.id}@campus.example"


@dataclass(frozen=True)
class Course:
    id: str
    label: str
    title: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """person's id -> one of ROLES_OF_13; all others are students."""

    def role_of(self, person: Person) -> str:
        return self.roles.get(person.id, "student")


PEOPLE = (
    Person("ada", "Ada Lovelace"),
    Person("tom", "Tom Kibble"),
    Person("zoe", "Zoë Müller-Ångström"),
    Person("eve", "Eve Moneypenny"),
)

COURSES = (
    Course("17", "PHYS101", "Physics I", {"ada": "instructor", "tom": "assistant"}),
    # The same label, as happens when a course is repeated.
    Course("31", "PHYS101", "Physics I (again)", {"tom": "instructor", "ada": "student"}),
    Course(
        "42",
        "Ψ {2026}/\\(a) 🎉",
        "Psychology {2026} (a/b\\c) & \"daß\" 100 % 🎉 <script>alert('x')</script>",
        {"ada": "instructor", "zoe": "professor who learns"},
    ),
)


class Platform:
    """Serves at `url` between `start` and `stop`, in its own thread; or in a `with`.

    `hub_url` is the hub's address in the browser, with its base_url and no slash at the end; it may
    be set later. The platform calls itself localhost, so for a hub at 127.0.0.1 it is another site,
    as in real life. `port` 0 is any that is free, known after `start`.
    """

    def __init__(
        self,
        hub_url: str = "",
        port: int = 0,
        *,
        people: Sequence[Person] = PEOPLE,
        courses: Sequence[Course] = COURSES,
    ) -> None:
        self.hub_url = hub_url.rstrip("/")
        self.people = {person.id: person for person in people}
        self.courses = {course.id: course for course in courses}
        self.guid = "campus.example"
        self.client_id = "nbexchange-example"
        self.deployment_id = "1"
        self.consumer_key = "nbexchange-example-key"
        self.consumer_secret = secrets.token_hex(32)
        self.key = new_key()
        self.key_id = secrets.token_hex(8)
        self._port = port
        self._thread: threading.Thread | None = None

    # -- settings for the hub

    @property
    def url(self) -> str:
        return f"http://localhost:{self._port}"

    @property
    def issuer(self) -> str:
        return self.url

    @property
    def authorize_url(self) -> str:
        return f"{self.url}/authorize"

    @property
    def jwks_endpoint(self) -> str:
        return f"{self.url}/jwks.json"

    def settings(self) -> dict[str, Any]:
        """All of it, for a JSON file or an environment variable."""
        return {
            "url": self.url,
            "issuer": self.issuer,
            "client_id": self.client_id,
            "authorize_url": self.authorize_url,
            "jwks_endpoint": self.jwks_endpoint,
            "consumers": {self.consumer_key: self.consumer_secret},
        }

    # -- LTI 1.3

    def login_of_13(self, person: Person, course: Course | None, to: str = "") -> str:
        """The first address of a launch. `to` is a path below the hub's base_url."""
        hints = {
            "iss": self.issuer,
            "client_id": self.client_id,
            "login_hint": person.id,
            "lti_message_hint": course.id if course else "none",
            "target_link_uri": f"{self.hub_url}{to or '/hub'}",
        }
        return f"{self.hub_url}/hub/lti13/oauth_login?{urlencode(hints)}"

    def claims_of_13(
        self, person: Person, course: Course | None, nonce: str, **changes: Any
    ) -> dict[str, Any]:
        """The claims of this launch; `changes` replace claims, None removes one.

        The names in `changes` are short: `roles` is the claim `https://.../claim/roles`.
        """
        now = int(time.time())
        said: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 60,
            "nonce": nonce,
            "sub": person.id,
            "name": person.name,
            "email": person.email,
            "message_type": "LtiResourceLinkRequest",
            "version": "1.3.0",
            "deployment_id": self.deployment_id,
            "target_link_uri": f"{self.hub_url}/hub",
            "resource_link": {"id": f"link-{course.id if course else 'none'}"},
            "tool_platform": {"guid": self.guid, "name": "The pretend campus"},
            "roles": ROLES_OF_13[course.role_of(person) if course else "student"],
        }
        if course:
            said["context"] = {"id": course.id, "label": course.label, "title": course.title}
        said.update(changes)
        return {
            key if key in CLAIMS_OF_OPENID else CLAIM + key: value
            for key, value in said.items()
            if value is not None
        }

    def id_token(
        self, claims: Mapping[str, Any], *, key: Any = None, algorithm: str = "RS256"
    ) -> str:
        """Signed by the platform's key, or by another `key`; not at all by the algorithm `none`."""
        signing = None if algorithm == "none" else key or self.key
        return jwt.encode(dict(claims), signing, algorithm=algorithm, headers={"kid": self.key_id})

    def jwks(self) -> dict[str, Any]:
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": self.key_id, "use": "sig", "alg": "RS256"}]}

    # -- LTI 1.1

    @property
    def launch_url_of_11(self) -> str:
        return f"{self.hub_url}/hub/lti/launch"

    def form_of_11(
        self,
        person: Person,
        course: Course | None,
        to: str = "",
        *,
        consumer_key: str | None = None,
        secret: str | None = None,
        timestamp: int | None = None,
        **changes: str | None,
    ) -> dict[str, str]:
        """The signed fields of a launch; `changes` replace fields, None removes one."""
        said: dict[str, str | None] = {
            "lti_message_type": "basic-lti-launch-request",
            "lti_version": "LTI-1p0",
            "resource_link_id": f"link-{course.id if course else 'none'}",
            "user_id": person.id,
            "lis_person_name_full": person.name,
            "lis_person_contact_email_primary": person.email,
            "tool_consumer_instance_guid": self.guid,
            "roles": ROLES_OF_11[course.role_of(person) if course else "student"],
        }
        if course:
            said["context_id"] = course.id
            said["context_label"] = course.label
            said["context_title"] = course.title
        if to:
            said["custom_next"] = f"{self.hub_url}{to}"
        said.update(changes)
        client = Client(
            consumer_key or self.consumer_key,
            client_secret=secret or self.consumer_secret,
            signature_type=SIGNATURE_TYPE_BODY,
            timestamp=str(timestamp or int(time.time())),
        )
        _, _, body = client.sign(
            self.launch_url_of_11,
            "POST",
            body={key: value for key, value in said.items() if value is not None},
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        return dict(parse_qsl(body, keep_blank_values=True))

    # -- the web server

    def __enter__(self) -> Platform:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it serves. OSError if the port is taken."""
        sockets = bind_sockets(self._port, "localhost")
        self._port = sockets[0].getsockname()[1]
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(sockets, started)), daemon=True
        )
        self._thread.start()
        started.wait()

    def stop(self) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()
            self._thread = None

    async def _serve(self, sockets: list[Any], started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = HTTPServer(self.application())
        server.add_sockets(sockets)
        started.set()
        await self._stopped.wait()
        server.stop()
        await server.close_all_connections()

    def application(self) -> Application:
        routes = [
            (r"/", Home),
            (r"/launch", Start),
            (r"/authorize", Authorize),
            (r"/jwks.json", Keys),
        ]
        return Application([(path, handler, {"platform": self}) for path, handler in routes])


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Page(RequestHandler):
    def initialize(self, platform: Platform) -> None:
        self.platform = platform

    def chosen(self, person_id: str, course_id: str) -> tuple[Person, Course | None]:
        person = self.platform.people.get(person_id)
        course = self.platform.courses.get(course_id)
        if person is None or (course is None and course_id != "none"):
            raise HTTPError(404, "There is no such person or course.")
        return person, course

    def send_form(self, action: str, fields: Mapping[str, str]) -> None:
        """A form that submits itself, as platforms use."""
        inputs = "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
            for name, value in fields.items()
        )
        self.finish(
            "<!doctype html><meta charset=utf-8><title>Launch</title>"
            f'<form id="launch" method="post" action="{escape(action)}">{inputs}'
            "<button>Go on</button></form><script>document.getElementById('launch').submit()"
            "</script>"
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        message = error.log_message if isinstance(error, HTTPError) else "It went wrong."
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {message}\n")


class Home(Page):
    """Users, courses, and a button for each kind of launch."""

    def get(self) -> None:
        sections = "".join(map(self._section, self.platform.people.values()))
        self.finish(
            "<!doctype html><html lang=en><meta charset=utf-8><title>The pretend campus</title>"
            f"{STYLE}<h1>The pretend campus</h1><p>A simulated platform without passwords. "
            "Choose who you are, and open a course in Jupyter.</p>"
            f"{sections}</html>"
        )

    def _section(self, person: Person) -> str:
        courses = [*self.platform.courses.values(), None]
        items = "".join(self._course(person, course) for course in courses)
        return f'<section id="{person.id}"><h2>{escape(person.name)}</h2><ul>{items}</ul></section>'

    def _course(self, person: Person, course: Course | None) -> str:
        title = course.title if course else "No course (a link on the front page)"
        role = course.role_of(person) if course else ""
        teaches = role in ("instructor", "assistant")
        ways = [("JupyterLab", "")]
        if teaches:
            ways.append(("Formgrader", "/hub/user-redirect/formgrader"))
        buttons = "".join(
            self._button(person, course, title, version, into, to)
            for into, to in ways
            for version in ("1.3", "1.1")
        )
        shown = f" <small>{escape(role)}</small>" if role else ""
        return f"<li><b>{escape(title)}</b>{shown}<br>{buttons}</li>"

    def _button(
        self, person: Person, course: Course | None, title: str, version: str, into: str, to: str
    ) -> str:
        course_id = course.id if course else "none"
        fields = {"person": person.id, "course": course_id, "version": version, "to": to}
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{escape(value)}">'
            for name, value in fields.items()
        )
        told = f"{into} of {title} as {person.name} by LTI {version}"
        return (
            f'<form action="/launch" id="launch-{person.id}-{course_id}-{version.replace(".", "")}-'
            f'{into.lower()}">{inputs}<button aria-label="{escape(told)}">{into}, LTI {version}'
            "</button></form>"
        )


class Start(Page):
    """A button was pressed."""

    def get(self) -> None:
        person, course = self.chosen(self.get_argument("person"), self.get_argument("course"))
        to = self.get_argument("to", "")
        if self.get_argument("version", "1.3") == "1.3":
            self.redirect(self.platform.login_of_13(person, course, to))
        else:
            fields = self.platform.form_of_11(person, course, to)
            self.send_form(self.platform.launch_url_of_11, fields)


class Authorize(Page):
    """LTI 1.3: the hub has redirected the browser here, to identify the user."""

    def get(self) -> None:
        callback = f"{self.platform.hub_url}/hub/lti13/oauth_callback"
        wanted = {
            "client_id": self.platform.client_id,
            "redirect_uri": callback,
            "response_type": "id_token",
            "response_mode": "form_post",
            "scope": "openid",
        }
        for name, value in wanted.items():
            if self.get_argument(name, "") != value:
                raise HTTPError(400, f"{name} has to be {value}.")
        person, course = self.chosen(
            self.get_argument("login_hint"), self.get_argument("lti_message_hint")
        )
        claims = self.platform.claims_of_13(person, course, self.get_argument("nonce"))
        fields = {
            "id_token": self.platform.id_token(claims),
            "state": self.get_argument("state"),
        }
        self.send_form(callback, fields)

    post = get


class Keys(Page):
    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(self.platform.jwks()))


STYLE = """<style>
body { font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }
form { display: inline } li { margin-bottom: 1em } small { color: #666 }
</style>"""
