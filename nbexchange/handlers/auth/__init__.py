"""User handlers: who a request comes from."""
