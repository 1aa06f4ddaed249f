"""A hub whose users come from an LMS by LTI, with the exchange as one of its services.

Your own hub only needs the one call at the end. The settings above it exist in every hub in some
form (users, a spawner, addresses); here they need only this machine. run.py has chosen the ports
and started the platform; `SETTINGS` contains both.
"""

import json
import os
import sys
from pathlib import Path

from ltiauthenticator.lti11.auth import LTI11Authenticator
from ltiauthenticator.lti11.handlers import LTI11AuthenticateHandler
from ltiauthenticator.lti13.auth import LTI13Authenticator

from nbexchange.hub import configure

c = get_config()
HERE = Path(__file__).resolve().parent
SETTINGS = json.loads(Path(os.environ["HUB_LOCAL_SETTINGS"]).read_text())
DATA = Path(SETTINGS["data"])
PLATFORM = SETTINGS["platform"]

# -- users: they come from the platform, by LTI 1.3 or 1.1


class Launches(LTI13Authenticator):
    """Both versions in one hub. With only one version, use its class directly."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._lti11 = LTI11Authenticator(**kwargs)

    def get_handlers(self, app):
        return [*super().get_handlers(app), *self._lti11.get_handlers(app)]

    async def authenticate(self, handler, data=None):
        by_11 = isinstance(handler, LTI11AuthenticateHandler)
        way = self._lti11 if by_11 else super()
        return await way.authenticate(handler, data)


c.JupyterHub.authenticator_class = Launches
c.LTI13Authenticator.issuer = PLATFORM["issuer"]
c.LTI13Authenticator.client_id = {PLATFORM["client_id"]}
c.LTI13Authenticator.authorize_url = PLATFORM["authorize_url"]
c.LTI13Authenticator.jwks_endpoint = PLATFORM["jwks_endpoint"]
c.LTI11Authenticator.consumers = PLATFORM["consumers"]
# The account has the platform's id of the user as its name, with both versions.
c.LTI13Authenticator.username_key = "sub"
c.LTI11Authenticator.username_key = "user_id"
# Without this, an LTI 1.1 launch without a page would end on the hub's home page.
c.JupyterHub.default_url = "/hub/user-redirect/lab"

# -- each user's JupyterLab: a process on this machine, for an example only

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(DATA / "homes" / "{username}")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
c.Spawner.default_url = "/lab"
# Several JupyterLabs at once start slowly on a small machine.
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
# In an image this folder is /etc/jupyter.
c.Spawner.environment = {
    "JUPYTER_CONFIG_PATH": os.pathsep.join(
        filter(None, [str(HERE / "notebook"), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
}
c.Spawner.env_keep = [
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL"),
    *("JUPYTER_PATH", "JUPYTERLAB_DIR"),
]

# -- addresses: this machine only

c.JupyterHub.bind_url = f"http://127.0.0.1:{SETTINGS['port']}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{SETTINGS['hub_port']}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{SETTINGS['proxy_port']}"
c.ConfigurableHTTPProxy.command = [SETTINGS["proxy"]]
c.ConfigurableHTTPProxy.pid_file = str(DATA / "proxy.pid")
c.JupyterHub.db_url = f"sqlite:///{DATA / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(DATA / "cookie_secret")

# -- the exchange

configure(
    c,
    url=f"http://127.0.0.1:{SETTINGS['exchange_port']}",
    command=[sys.executable, "-m", "nbexchange", f"--config-file={HERE / 'nbexchange_config.py'}"],
    environment={"NBEXCHANGE_DATA": str(DATA / "exchange")},
    lti=True,
    # All keys belong to one platform with the same courses.
    platforms=dict.fromkeys([PLATFORM["issuer"], *PLATFORM["consumers"]], "campus"),
)
