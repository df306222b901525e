"""What a results folder holds, read once for page and Markdown alike."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.environment import FILE as ENVIRONMENT
from benchmarks.environment import read_environments
from benchmarks.intervals import Interval, Ranking, interval
from benchmarks.ordering import probe_key, row_key
from benchmarks.results import (
    Cost,
    Measurement,
    encoder_path,
    latest,
    read_costs,
    read_failures,
    read_measurements,
    read_plan,
)
from benchmarks.verdict import BASELINE, CEILING, Summary, ranking, summarise, tables
from pretext.system.errors import UserError

MOST_SHOWN = 8
"""Rows that can be told apart in a plot, or compared by eye in a gallery; of more the best are shown."""
BEST_SHOWN = 5
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "faiss-cpu", "timm")
"""Whose versions the report names; OUT/environment.json has all."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One metric of one row at one stage, over its seeds."""

    pretext: str
    probe: str
    metric: str
    stage: str
    unit: str
    chance: float | None
    headline: bool
    """Whether it is the headline of any seed: the stage was chosen on val."""
    seeds: int
    n: int
    value: Interval


@dataclasses.dataclass(frozen=True)
class Run:
    """A results folder."""

    out: Path
    plan: dict[str, Any]
    """OUT/plan.json; empty where there is none."""
    measurements: list[Measurement]
    """Of each row, probe and seed the latest cell's."""
    summaries: list[Summary]
    costs: dict[str, Cost]
    failures: list[dict[str, Any]]
    ranking: Ranking | None = None
    """Mean ranks of the rows; None of too few probes."""
    environments: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """As `write_environment` writes them."""

    @property
    def shown(self) -> list[str]:
        """Rows that plots and galleries single out: all, or of many random weights, labels, and the best others."""
        if len(self.rows) <= MOST_SHOWN:
            return self.rows
        if self.ranking is not None:
            order = list(self.ranking.ranks)
        else:
            column = [s for s in self.summaries if s.headline and s.probe == self.probes[0]]
            order = [s.pretext for s in sorted(column, key=lambda s: s.mean * (-1 if s.higher_is_better else 1))]
        ends = {BASELINE, CEILING}
        best = [row for row in order if row not in ends][:BEST_SHOWN]
        return [row for row in self.rows if row in ends or row in best]

    @property
    def rows(self) -> list[str]:
        """Rows with a headline number, from the top of the table."""
        return sorted({s.pretext for s in self.summaries if s.headline}, key=row_key)

    @property
    def probes(self) -> list[str]:
        """Probes with a headline number, from the left of the table."""
        return sorted({s.probe for s in self.summaries if s.headline}, key=probe_key)

    @property
    def data(self) -> list[str]:
        """Specs of the data sets that were judged on."""
        return sorted({m.data for m in self.measurements}) or [str(self.plan.get("data", ""))]

    @property
    def synthetic(self) -> bool:
        """Whether the pictures were drawn by a program."""
        return bool(self.plan.get("synthetic", any(data.startswith("scenes") for data in self.data)))

    @property
    def learned(self) -> str:
        """What rows were trained on, where that is not what they were judged with; else empty."""
        spec = str(self.plan.get("pretrain_data", ""))
        if not spec or spec == self.plan.get("data"):
            return ""
        return spec + (" (synthetic)" if self.plan.get("pretrain_synthetic") else "")

    @property
    def planned(self) -> set[str]:
        """Names of the plan's cells that judge; empty without a plan."""
        return {cell["name"] for cell in self.plan.get("cells", ()) if cell["probe"]}

    @property
    def judged(self) -> set[str]:
        """Names of the cells that have a result, those of earlier plans among them."""
        return {m.cell for m in self.measurements}

    def headlines(self) -> dict[tuple[str, str], Summary]:
        """Return the headline numbers by row and probe."""
        return {(s.pretext, s.probe): s for s in self.summaries if s.headline}

    def best(self, probe: str) -> set[str]:
        """Return the rows of a probe's best headline mean."""
        column = [s for (_, name), s in self.headlines().items() if name == probe]
        means = [s.mean for s in column]
        top = max(means) if column[0].higher_is_better else min(means)
        return {s.pretext for s in column if s.mean == top}

    def pretrained(self) -> dict[str, dict[int, Path]]:
        """Return the folders of the encoders that were judged, by row and by the seed that they came of."""
        found: dict[str, dict[int, Path]] = {}
        for measurement in self.measurements:
            settings = json.loads(measurement.config_json)
            name = settings.get("pretrain")
            if name and encoder_path(self.out, name).exists():
                seeds = found.setdefault(measurement.pretext, {})
                if encoder_path(self.out, name).parent not in seeds.values():
                    seeds[measurement.seed] = encoder_path(self.out, name).parent
        return {row: dict(sorted(found[row].items())) for row in sorted(found, key=row_key)}

    def first_encoders(self) -> dict[str, Path]:
        """Return the folder of each row's first seed."""
        return {row: next(iter(seeds.values())) for row, seeds in self.pretrained().items()}

    def readings(self) -> list[Reading]:
        """Return every score of every stage, stages from the first to the deepest."""
        groups: dict[tuple[str, str, str, str], list[Measurement]] = {}
        for m in self.measurements:
            groups.setdefault((m.pretext, m.probe, m.metric, m.stage), []).append(m)
        readings = [
            Reading(
                pretext=row,
                probe=probe,
                metric=metric,
                stage=stage,
                unit=group[0].unit,
                chance=group[0].chance,
                headline=any(m.headline for m in group),
                seeds=len(group),
                n=group[0].n,
                value=interval(tables(dict(enumerate(group)))[0]),
            )
            for (row, probe, metric, stage), group in groups.items()
        ]
        return sorted(readings, key=lambda r: (row_key(r.pretext), probe_key(r.probe)))  # stable: stages stay

    def facts(self) -> list[tuple[str, str]]:
        """Return what was run, as name and value."""
        plan, rows = self.plan, self.measurements
        facts = [
            ("Command", str(plan.get("command", ""))),
            ("Profile", str(plan.get("profile", ""))),
            ("Data", ", ".join(self.data) + (" (synthetic)" if self.synthetic else "")),
            ("Trained on", self.learned),
            ("Data fingerprint (test)", _all(m.data_fingerprint for m in rows)),
            ("Encoder", _all(m.encoder for m in rows) or str(plan.get("encoder", ""))),
            ("Picture side", f"{plan['image_size']} px" if "image_size" in plan else ""),
            ("Seeds", _all(m.seed for m in rows)),
            ("Code", _all(f"{m.git_sha}{' with changes' if m.git_dirty else ''}" for m in rows)),
            ("PyTorch", _all(m.torch_version for m in rows)),
            ("Device", _all(m.device for m in rows)),
            *self._environment(),
            ("Cells judged", self._progress()),
            ("Started", min((m.started_at for m in rows), default="")),
            ("Last cell started", max((m.started_at for m in rows), default="")),
        ]
        return [(name, value) for name, value in facts if value]

    def _environment(self) -> list[tuple[str, str]]:
        """Return what the cells were computed with; where that changed, all that it was."""

        def all_of(text: Callable[[dict[str, Any]], str]) -> str:
            return "; ".join(dict.fromkeys(text(entry) for entry in self.environments))

        return [
            ("Driver", all_of(lambda e: ", ".join(filter(None, [e["driver"], e["cuda"] and f"CUDA {e['cuda']}"])))),
            ("Processor", all_of(lambda e: f"{e['processor']}, {e['cores']} cores")),
            ("Instructions", all_of(lambda e: e.get("instructions", ""))),
            ("Workers", all_of(lambda e: f"{e['workers']}, threads of each {e['threads']}")),
            ("System", all_of(lambda e: f"{e['system']}, {e['python']}")),
            ("Packages", all_of(lambda e: _versions(e["packages"]))),
        ]

    def _progress(self) -> str:
        if not self.planned:
            return str(len(self.judged))
        earlier = len(self.judged - self.planned)
        more = f", and {earlier} of earlier plans" if earlier else ""
        return f"{len(self.judged & self.planned)} of {len(self.planned)} planned{more}"

    def notes(self) -> list[str]:
        """Return what the data set and the plan had to say."""
        return [str(note) for note in (*self.plan.get("notes", ()), *self.plan.get("left_out", ()))]


def read_run(out: Path) -> Run:
    """Read a results folder.

    Raises:
        UserError: If it holds neither results nor failures.
    """
    measurements = latest(read_measurements(out))
    plan = read_plan(out)
    planned = {cell["name"] for cell in plan.get("cells", ())}
    done = {m.cell for m in measurements}
    failures = [  # of the cells that are asked for now: those of other settings may lie beside them
        failure
        for failure in read_failures(out)
        if failure["cell"] not in done and (not planned or failure["cell"] in planned)
    ]
    if not measurements and not failures:
        raise UserError(f"{out}: no results to report; python benchmarks/run_all.py --out {out} computes them")
    summaries = summarise(measurements)
    costs, environments = read_costs(out), read_environments(out)
    return Run(out, plan, measurements, summaries, costs, failures, ranking(summaries), environments)


def _versions(packages: Mapping[str, str]) -> str:
    named = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    return f"{named}; all {len(packages)} in {ENVIRONMENT}"


def _all(values: Any) -> str:
    return ", ".join(str(value) for value in sorted(set(values)) if value != "")
