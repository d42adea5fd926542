"""Faults that the simulator makes on demand."""
