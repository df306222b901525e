"""Simulations that measure the error rates of benchmarks/summaries/intervals.py; not part of the wheel.

simulation    draws tables with known truth and prints the tables of docs/statistics-tables.md
"""

TRIALS = 2000
"""Simulated tables for each line that is printed."""
