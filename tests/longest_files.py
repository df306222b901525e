"""Test files that take longest, longest first; `conftest` puts them first in this order."""

LONGEST = (
    "test_exporting",
    "test_every_command",
    "test_clusters",
    "test_running_documentation",
    "test_run_all",
    "test_long_documentation",
    "test_processes_of_tasks",
    "test_split_brain",
    "test_processes",
    "test_egomotion",
    "test_kills",
    "test_own_encoder",
    "test_recipes",
    "test_commands",
)
"""pytest-xdist gives a whole file to one process; a long one at the end would leave the other process without work."""
