"""The registry: models, the providers that serve them, and prices."""
