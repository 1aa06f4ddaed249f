"""A hub that people come to by LTI 1.1 and 1.3; nbexchange/hub is mounted under another name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.support.hub import Hub

MOUNTED = "courses_of_the_campus"

CONFIG = """
import asyncio, sys
sys.path.insert(0, {folder!r})
sys.modules["nbexchange"] = None  # this hub has none

from ltiauthenticator.lti11.auth import LTI11Authenticator
from ltiauthenticator.lti13.auth import LTI13Authenticator

platform = {platform!r}

class Launches(LTI13Authenticator):
    # Both versions in one hub; and somebody who comes by neither.
    def get_handlers(self, app):
        return [*super().get_handlers(app), *LTI11Authenticator.get_handlers(self, app)]

    def get_uri_scheme(self, request):
        return "http"

    async def authenticate(self, handler, data=None):
        if name := handler.get_argument("by_name", ""):
            return name
        if "oauth_consumer_key" in handler.request.arguments:
            return await LTI11Authenticator(parent=self.parent).authenticate(handler, data)
        return await super().authenticate(handler, data)

    async def add_user(self, user):
        super().add_user(user)
        # As an authenticator that makes an account, while the other launch of the same person
        # goes on to its end.
        while user.name.startswith("twin") and not user.groups:
            await asyncio.sleep(0.005)

c.JupyterHub.authenticator_class = Launches
c.LTI13Authenticator.issuer = platform["issuer"]
c.LTI13Authenticator.client_id = platform["client_id"]
c.LTI13Authenticator.authorize_url = platform["authorize_url"]
c.LTI13Authenticator.jwks_endpoint = platform["jwks_endpoint"]
c.LTI13Authenticator.username_key = "sub"
c.LTI11Authenticator.consumers = {{**platform["consumers"], "elsewhere": "its-secret"}}
c.LTI11Authenticator.username_key = "user_id"
{before}
from {mounted} import configure

configure(
    c,
    platform["url"],  # something that answers, or the hub waits for it
    api_token="the-token-of-the-service-0123456789",
    lti=True,
    platforms={{platform["issuer"]: "campus", next(iter(platform["consumers"])): "campus"}},
    organisations={{"elsewhere": 7}},
    **{{"prefix_names": False, **dict({options})}},
)
"""


def hub_with_launches(
    folder: Path, platform: Any, *, before: str = "", options: str = "", version: int = 6
) -> Hub:
    """`before` comes before `configure` in the file, `options` are more of its arguments."""
    source = Path(__file__).parents[2] / "nbexchange" / "hub"
    shutil.copytree(source, folder / "mounted" / MOUNTED, ignore=shutil.ignore_patterns("__*__"))
    shutil.copy(source / "__init__.py", folder / "mounted" / MOUNTED)
    config = CONFIG.format(
        folder=str(folder / "mounted"),
        mounted=MOUNTED,
        platform=platform.settings(),
        before=before,
        options=options,
    )
    hub = Hub(folder, config, version=version)
    platform.hub_url = hub.url
    return hub
