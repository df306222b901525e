"""Test files that take longest, longest first; `conftest` puts them first in this order."""

LONGEST = (
    "test_clusters",
    "test_exporting",
    "test_torchrun",
    "test_every_command",
    "test_long_documentation",
    "test_processes_of_tasks",
    "test_run_all",
    "test_processes",
    "test_kills",
    "test_simmim",
    "test_own_encoder",
    "test_commands",
    "test_recipes",
)
"""pytest-xdist gives a whole file to one process; a long one at the end would leave the other process without work."""
