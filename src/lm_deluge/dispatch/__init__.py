"""When each call may start, and how often."""
