# In a notebook image, as /etc/jupyter/nbgrader_config.py. A hub that is set up with
# nbexchange.hub.configure passes the address of the exchange and the token in the environment;
# without such a hub, set NBEXCHANGE_URL and NBEXCHANGE_TOKEN.
from nbexchange.plugin import configure

c = get_config()
configure(c)
