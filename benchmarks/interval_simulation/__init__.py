"""Simulate the coverage of the intervals; not part of the wheel."""
