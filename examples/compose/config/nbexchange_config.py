# Options that the environment does not set. The service reads this file when it starts.
c = get_config()

c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.token_file.TokenFileUserHandler"
c.TokenFileUserHandler.path = "/etc/config/people.json"
