"""Print coverage and false positive rates: `python -m benchmarks.interval_simulation`."""

from benchmarks.interval_simulation.simulation import main

if __name__ == "__main__":
    main()
