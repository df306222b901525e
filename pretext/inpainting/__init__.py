"""Measure how well a decoder fills holes."""
