"""`deluge batch --workers N`: worker processes send the requests; the command has the limits, journal and output."""
