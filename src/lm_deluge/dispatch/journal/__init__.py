"""The journal of a batch: a file of records that survives kill -9."""
