# The exchange asks the hub who people are. Where to listen and where the hub is, the hub says.
c = get_config()
c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.jupyterhub.JupyterHubUserHandler"
