"""Plans the comparison, runs it, judges it, draws it."""
