"""All commands under one name, `pretext-bench`.

Examples:
  pretext-bench compare --profile smoke
  pretext-bench train context_encoder --data folder:photos --out runs/mine
  pretext-bench judge linear --encoder mine.safetensors --data folder:labelled

Commands, and what each is without this name:
  compare                 python benchmarks/run_all.py
  list                    python -m pretext list
  train TASK              python -m pretext train
  inpaint                 python -m pretext inpaint
  embed                   python -m pretext embed
  data SPEC               python -m pretext data
  export                  python -m pretext export
  judge PROBE             python -m downstream
  index                   python -m retrieval index
  search INDEX            python -m retrieval search
  fill                    python -m retrieval inpaint
  demo                    python -m retrieval demo

`pretext-bench COMMAND --help` explains a command.
"""

from __future__ import annotations

import importlib

from pretext.system.errors import UserError, did_you_mean, run_command
from pretext.system.installation import check_installation

PROG = "pretext-bench"
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "compare": ("benchmarks.run_all", ()),
    **{name: ("pretext.__main__", (name,)) for name in ("list", "train", "inpaint", "embed", "data", "export")},
    "judge": ("downstream.__main__", ()),
    **{name: ("retrieval.__main__", (name,)) for name in ("index", "search", "demo")},
    "fill": ("retrieval.__main__", ("inpaint",)),
}
"""The module of each command, and the words that stand before its arguments."""


def main(argv: list[str]) -> int:
    """Run a command; return its exit code.

    Raises:
        UserError: If there is no such command, or another distribution has overwritten one of the packages.
    """
    check_installation()
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if argv[0] not in COMMANDS:
        raise UserError(f"{PROG}: unknown command {argv[0]!r}; {did_you_mean(argv[0], COMMANDS)}")
    module, words = COMMANDS[argv[0]]
    code: int = importlib.import_module(module).main([*words, *argv[1:]])
    return code


def console() -> None:
    """Run the command line that `pretext-bench` was started with, and exit."""
    run_command(main)
