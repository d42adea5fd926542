"""Sends a request, yields bytes."""
