"""Functions for `jupyterhub_config.py`: they connect a hub to the exchange.

    from nbexchange.hub import configure
    configure(c, command=["nbexchange"], lti=True)

This package uses the standard library and jupyterhub (with its tornado), and nothing else of
nbexchange. So this folder alone can be mounted into a hub's image, under any name. docs/hub.md has
the details.
"""

from .config import configure
from .lti import ASSISTANTS, INSTRUCTORS, Launch
from .people import courses_of_user, role_of

__all__ = ["ASSISTANTS", "INSTRUCTORS", "Launch", "configure", "courses_of_user", "role_of"]
