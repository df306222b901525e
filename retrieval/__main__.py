"""Index the patches of a data set, search them, fill holes from them.

Examples:
  python -m retrieval index --encoder timm:resnet18 --data folder:a --out index
  python -m retrieval search index --image a.jpg --box 40 60 120 90 -k 10

Commands:
  index                   Encode regions of pictures and write an index.
  search INDEX            Find the regions that are nearest to a query.
  inpaint                 Fill holes of test pictures from training pictures.
  demo                    Serve a page to search indexes with a mouse.

`python -m retrieval COMMAND --help` explains a command's flags.
"""

from __future__ import annotations

from pretext.system import help_page
from pretext.system.declarations import read_class
from pretext.system.errors import UserError, did_you_mean, run_command

PROG = "python -m retrieval"
OPTIONS = {
    "index": "retrieval.index_command:Index",
    "search": "retrieval.search_command:Search",
    "inpaint": "retrieval.filling_command:Inpaint",
    "demo": "retrieval.demo.server:Demo",
}
"""Where each command's options are declared."""


def main(argv: list[str]) -> int:
    """Run one of the commands; return the exit code."""
    commands = {"index": index, "search": search, "inpaint": inpaint, "demo": demo}
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if argv[0] not in commands:
        raise UserError(f"{PROG}: unknown command {argv[0]!r}; {did_you_mean(argv[0], commands)}")
    if help_page.is_asked(argv):
        declared = read_class(OPTIONS[argv[0]])
        page = help_page.HelpPage(f"{PROG} {argv[0]}", declared.about, help_page.groups_of(declared, rest="flags"))
        print(page.text())
        return 0
    return commands[argv[0]](argv[1:])


def index(argv: list[str]) -> int:
    """Run `python -m retrieval index`."""
    from retrieval.index_command import index_command

    return index_command(argv)


def search(argv: list[str]) -> int:
    """Run `python -m retrieval search`."""
    from retrieval.search_command import search_command

    return search_command(argv)


def inpaint(argv: list[str]) -> int:
    """Run `python -m retrieval inpaint`."""
    from retrieval.filling_command import inpaint_command

    return inpaint_command(argv)


def demo(argv: list[str]) -> int:
    """Run `python -m retrieval demo`."""
    try:
        from retrieval.demo.server import demo_command
    except ImportError:
        raise UserError("fastapi and uvicorn are not installed; run pip install 'pretext-bench[demo]'") from None
    return demo_command(argv)


if __name__ == "__main__":
    run_command(main)
