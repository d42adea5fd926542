"""Decide which call starts, when and at which model: limits, queue, retries."""
