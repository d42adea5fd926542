"""One request, no queue, no retry."""
