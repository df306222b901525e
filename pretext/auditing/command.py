"""`python -m pretext data`: look at every picture of a data set, and say what is there and what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from pretext.auditing import tables
from pretext.auditing.contact_sheet import write_contact_sheet
from pretext.auditing.counting import audit, faults_seen
from pretext.datasets import Fault, open_dataset
from pretext.system.checkpoint import atomic_write
from pretext.system.command_line import parse
from pretext.system.errors import UserError

PROG = "python -m pretext data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Look at every picture of a data set, and say what it holds and what is wrong with it.

    Examples:
        python -m pretext data folder:photos
        python -m pretext data coco:drone --out audit --strict
    """

    spec: tyro.conf.Positional[str]
    """Data set to look at, KIND[:PATH][?key=value&…]."""
    out: Path | None = None
    """Folder for audit.json, classes.csv and contact_sheet.png; nothing is written if omitted."""
    strict: bool = False
    """End with exit code 2 if anything is wrong."""
    download: bool = False
    """Download a torchvision data set that is not on disk."""


def data_command(argv: list[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        UserError: If the data cannot be opened, or something is wrong with it under `--strict`.
    """
    options = parse(Data, argv, prog=PROG)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)  # fail before the work if it cannot be written
    data = open_dataset(options.spec, download=options.download)
    counted = audit(data)
    notes = [*faults_seen(data, counted), *data.notes]
    if options.out is not None:
        for name, content in (
            ("audit.json", tables.as_json(data, counted, notes)),
            ("classes.csv", tables.class_csv(data, counted)),
        ):
            with atomic_write(options.out / name) as beside:
                beside.write_text(content, encoding="utf-8", errors="backslashreplace")
        write_contact_sheet(data, options.out / "contact_sheet.png")
    print(tables.text(data, counted, notes))
    if options.out is not None:
        print(f"\n{options.out / 'contact_sheet.png'}")
    faults = [note for note in notes if isinstance(note, Fault)]
    if faults and options.strict:
        plural = "s" if len(faults) > 1 else ""
        raise UserError(
            f"{options.spec}: {len(faults)} fault{plural}, listed above; mend the data, or leave out --strict"
        )
    return 0
