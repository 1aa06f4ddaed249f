# What the environment does not say. It is read when the service starts.
c = get_config()

c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.token_file.TokenFileUserHandler"
c.TokenFileUserHandler.path = "/etc/config/people.json"
