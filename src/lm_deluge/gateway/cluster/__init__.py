"""Several processes that serve together: worker processes of one machine, and gateways on several machines."""
