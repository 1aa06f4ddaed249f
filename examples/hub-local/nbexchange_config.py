# The exchange asks the hub for users and courses. The hub passes both addresses in the environment.
c = get_config()
c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.jupyterhub.JupyterHubUserHandler"
