"""The lines of the leaderboard: one per folder, row and probe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.folders.submissions import Submission, differences, doubts
from benchmarks.folders.superseded import protocol_of
from benchmarks.planning.cells import CODE, as_json
from benchmarks.records.results import Measurement
from benchmarks.summaries.verdict import Summary, one_per_seed, summarise
from benchmarks.words.columns import probe_of, sets_of, with_columns
from benchmarks.words.ordering import probe_key


@dataclasses.dataclass(frozen=True)
class Entry:
    """The headline number of one probe for one row of one folder."""

    folders: tuple[Path, ...]
    """The folder, and others that hold the same cells with the same values."""
    command: str
    """Command line that the folder was computed by."""
    summary: Summary
    cells: tuple[Measurement, ...]
    """The headline measurement of each seed."""
    doubts: tuple[str, ...]
    """What speaks against the record, in a few words each."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the first cell; those of other seeds differ by the seed."""
        found: dict[str, Any] = json.loads(self.cells[0].config_json)
        return found

    @property
    def protocol(self) -> str:
        """Short hash of data, picture size, probe settings and code version: rows of one protocol are comparable."""
        return hashlib.sha256(as_json(protocol_of(self.settings)).encode()).hexdigest()[:6]

    @property
    def data(self) -> str:
        """The probe's data set with the beginning of its fingerprint."""
        return f"{self.cells[0].data} [{self.cells[0].data_fingerprint[:8]}]"

    @property
    def budget(self) -> int:
        """Pictures that pretraining processed; 0 for none, and for encoders from elsewhere."""
        return self.cells[0].images_seen


def entries_of(submissions: Sequence[Submission]) -> list[Entry]:
    """Return the entries of all folders: by data, protocol and probe, best first.

    Equal entries of several folders are one. Cells with other values in another folder are doubted in both.
    """
    found: dict[tuple[object, ...], Entry] = {}
    for submission in submissions:
        every = [row for rows in submission.cells.values() for row in rows]
        every = with_columns(every, sets_of(submission.plan))
        chosen = one_per_seed(every)
        for summary in summarise(every):
            if not summary.headline:
                continue
            cells = tuple(chosen[summary.pretext, summary.probe, summary.metric].values())
            numbers = [(m.cell, m.metric, m.stage, m.value) for each in cells for m in submission.cells[each.cell]]
            of_probe = dataclasses.replace(summary, probe=probe_of(summary.probe))  # the data is a column of its own
            key = (summary.pretext, *sorted(numbers))
            command = str(submission.plan.get("command", ""))
            remarks = _remarks(submission, cells, submissions)
            entry = found.setdefault(key, Entry((), command, of_probe, cells, remarks))
            found[key] = dataclasses.replace(
                entry,
                folders=(*entry.folders, submission.folder),
                doubts=tuple(dict.fromkeys((*entry.doubts, *remarks))),
            )
    return sorted(found.values(), key=_order)


def _remarks(
    submission: Submission, cells: Sequence[Measurement], submissions: Sequence[Submission]
) -> tuple[str, ...]:
    remarks = [doubt for each in cells for doubt in doubts(submission.cells[each.cell])]
    codes = {json.loads(each.config_json).get("code") for each in cells}
    remarks += [f"code version {code}, now {CODE}" for code in codes if code != CODE]
    remarks += [
        f"other values in {other.folder}"
        for other in submissions
        if other is not submission
        and any(each.cell in other.cells and differences(submission, other, each.cell) for each in cells)
    ]
    return tuple(dict.fromkeys(remarks))


def _order(entry: Entry) -> tuple[object, ...]:
    value = -entry.summary.mean if entry.summary.higher_is_better else entry.summary.mean
    return entry.data, entry.protocol, probe_key(entry.summary.probe), value
