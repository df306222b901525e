"""Measure speed beside other libraries; not part of the wheel."""
