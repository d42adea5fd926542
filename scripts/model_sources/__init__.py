"""How the rows of the registry are put together from public packages."""
