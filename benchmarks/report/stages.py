"""What each row gains over random weights at every stage of the encoder."""

from __future__ import annotations

import dataclasses

from benchmarks.report.content import Reading, Run
from benchmarks.summaries.verdict import BASELINE


@dataclasses.dataclass(frozen=True)
class Gain:
    """A probe's headline metric of one row at one stage, beside the baseline at that stage."""

    stage: str
    mean: float
    gain: float
    """Difference of the means from the baseline."""
    headline: bool


def gains_by_stage(run: Run) -> dict[str, dict[str, list[Gain]]]:
    """Return, by probe and row, the metric at every stage; for rows that have the stages of the baseline.

    Probes that read one stage are left out, and so are rows of other encoders.
    """
    metrics = {s.probe: s.metric for s in run.summaries if s.headline}
    every = run.readings
    found: dict[str, dict[str, list[Gain]]] = {}
    for probe in run.probes:
        rows: dict[str, list[Reading]] = {}
        for reading in every:
            if (reading.probe, reading.metric) == (probe, metrics[probe]):
                rows.setdefault(reading.pretext, []).append(reading)
        base = {reading.stage: reading.value.mean for reading in rows.get(BASELINE, ())}
        if len(base) < 2:
            continue
        found[probe] = {
            row: [Gain(r.stage, r.value.mean, r.value.mean - base[r.stage], r.headline) for r in readings]
            for row, readings in rows.items()
            if base.keys() == {r.stage for r in readings}
        }
    return found
