"""The batch APIs of the simulated providers."""
