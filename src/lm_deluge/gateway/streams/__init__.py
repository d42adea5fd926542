"""Streams that go on without their client."""
