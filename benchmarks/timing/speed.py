"""Time pretraining, probes and retrieval on this machine, beside reference implementations.

python benchmarks/timing/speed.py [--tasks A B …] [--probes A B …] [--data SPEC]
python benchmarks/timing/speed.py --linear
python benchmarks/timing/speed.py --retrieval [--vectors N …]
python benchmarks/timing/speed.py --loading --data folder:photos [--image-size N]
python benchmarks/timing/speed.py --peers --data folder:photos
python benchmarks/timing/speed.py --profile --tasks A … --probes B …
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository root on the import path instead of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pretext.system import help_page
from pretext.system.declarations import read_class
from pretext.system.errors import run_command


def main(argv: list[str]) -> int:
    """Run the command; return the exit code."""
    if help_page.is_asked(argv):
        declared = read_class("benchmarks.timing.measuring:Speed")
        groups = help_page.groups_of(declared, rest="flags")
        print(help_page.HelpPage("python benchmarks/timing/speed.py", declared.about, groups).text())
        return 0
    from benchmarks.timing.measuring import speed_command

    return speed_command(argv)


if __name__ == "__main__":
    run_command(main)
