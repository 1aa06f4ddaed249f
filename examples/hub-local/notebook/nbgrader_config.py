# All that nbgrader needs in the image of the notebooks (there: /etc/jupyter/nbgrader_config.py).
# Whose server it is, which courses they have, and where the exchange is, the hub says.
from nbexchange.plugin import configure

c = get_config()
configure(c)
