"""The journal of a batch: what is on the disk survives kill -9."""
