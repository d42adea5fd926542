"""The faults of the simulator."""
