"""Print coverage and false positive rates: `python -m benchmarks.interval_simulation`."""

from __future__ import annotations

import dataclasses

from benchmarks.interval_simulation import TRIALS
from pretext.system.command_line import parse
from pretext.system.errors import run_command

PROG = "python -m benchmarks.interval_simulation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation:
    """Measure the coverage of the intervals and their false positives on simulated tables.

    Examples:
        python -m benchmarks.interval_simulation
        python -m benchmarks.interval_simulation --seeds 3 --trials 200
    """

    seeds: tuple[int, ...] = (2, 3, 4, 5)
    """Numbers of seeds to simulate, each 2 or more."""
    trials: int = TRIALS
    """Simulated tables for each line that is printed."""

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 2 or self.trials < 1:
            raise ValueError(f"seeds is {self.seeds}, trials {self.trials}; allowed is 2 or more, and 1 or more")


def main(argv: list[str]) -> int:
    """Run the command; return the exit code."""
    options = parse(Simulation, argv, prog=PROG)
    from benchmarks.interval_simulation.simulation import print_tables

    print_tables(options.seeds, options.trials)
    return 0


if __name__ == "__main__":
    run_command(main)
