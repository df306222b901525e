"""Print how often intervals hold and marks are false: `python -m benchmarks.interval_simulation`."""

from benchmarks.interval_simulation.simulation import main

if __name__ == "__main__":
    main()
