# The complete configuration of nbgrader; in a notebook image: /etc/jupyter/nbgrader_config.py.
# The hub passes the user, the courses and the address of the exchange in the environment.
from nbexchange.plugin import configure

c = get_config()
configure(c)
