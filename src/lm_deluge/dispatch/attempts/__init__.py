"""One call: its attempts, the hedge beside them, the continuation after a break."""
