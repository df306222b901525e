"""Network parts that several pretext tasks share."""
