"""The routes of the simulator: one file for each provider's API, and one table of all of them."""
