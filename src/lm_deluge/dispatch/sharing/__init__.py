"""One set of limits for several processes: the process that owns them admits the calls of all others."""
