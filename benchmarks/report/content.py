"""Everything the report reads from a results folder."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.records.environment import FILE as ENVIRONMENT
from benchmarks.records.environment import read_environments
from benchmarks.records.results import (
    Measurement,
    encoder_path,
    latest,
    read_failures,
    read_measurements,
    read_plan,
)
from benchmarks.report.headline import best_of_probe
from benchmarks.summaries.costs import Cost, read_costs
from benchmarks.summaries.intervals import LEVEL, Interval, interval
from benchmarks.summaries.ranks import Ranking
from benchmarks.summaries.verdict import BASELINE, CEILING, Summary, mean_chance, ranking, summarise, tables
from benchmarks.words.columns import column, labels_of, sets_of, synthetic_sets
from benchmarks.words.naming import Row, metric_title, named_rows, probe_title
from benchmarks.words.ordering import column_order, row_key
from pretext.system.errors import UserError

MOST_SHOWN = 8
"""Most rows that plots and galleries show; of more, the references and the `BEST_SHOWN` best others."""
BEST_SHOWN = 5
PERCENT = f"{100 * LEVEL:.0f}\N{NO-BREAK SPACE}%"
"""Confidence level, for sentences."""
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "faiss-cpu", "timm")
"""Packages whose versions the report prints; OUT/environment.json lists all."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One metric of one row at one stage, summarised over its seeds."""

    pretext: str
    probe: str
    metric: str
    stage: str
    unit: str
    chance: float | None
    headline: bool
    """Whether any seed reports this stage as its headline; the stage is chosen on val."""
    seeds: int
    n: int
    value: Interval


@dataclasses.dataclass(frozen=True)
class Run:
    """Contents of a results folder."""

    out: Path
    plan: dict[str, Any]
    """Content of OUT/plan.json; empty if there is none."""
    measurements: list[Measurement]
    """Measurements of the latest cell of each row, probe and seed."""
    summaries: list[Summary]
    costs: dict[str, Cost]
    failures: list[dict[str, Any]]
    ranking: Ranking | None = None
    """Mean ranks of the rows; None with too few probes."""
    environments: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Content of OUT/environment.json: one entry per change of environment."""

    @property
    def shown(self) -> list[str]:
        """Rows that plots and galleries show: all, or with many rows the references and the best others."""
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
        """Rows with a headline number, in table order."""
        return sorted({s.pretext for s in self.summaries if s.headline}, key=row_key)

    @functools.cached_property
    def _named(self) -> dict[str, Row]:
        return {s.pretext: s.row for s in self.summaries}

    def named(self, row: str) -> Row:
        """Return what is known of a row, by its name in results.csv."""
        return self._named.get(row) or named_rows({row: "{}"})[row]

    def title(self, row: str) -> str:
        """Return the name of a row that people read."""
        return self.named(row).title

    @property
    def probes(self) -> list[str]:
        """Columns with a headline number, in table order: probes, or with several data sets probes on each."""
        return column_order(s.probe for s in self.summaries if s.headline)

    @property
    def sets(self) -> dict[str, str]:
        """Specs of the data sets that rows were evaluated on, by label; the label of one alone is empty."""
        return {label: spec for spec, label in labels_of(sets_of(self.plan)).items()}

    @property
    def data(self) -> list[str]:
        """The data sets that rows were evaluated on: specs, or of several the labels."""
        drawn = synthetic_sets(self.plan)
        if len(self.sets) > 1:
            return [f"{label}{' (synthetic)' if spec in drawn else ''}" for label, spec in self.sets.items()]
        return sorted({m.data for m in self.measurements}) or sets_of(self.plan) or [""]

    @property
    def synthetic(self) -> bool:
        """Whether the images of all data sets are synthetic."""
        return bool(self.plan.get("synthetic", any(data.startswith("scenes") for data in self.data)))

    @property
    def pretrain_data(self) -> str:
        """Spec or label of the pretraining data, if it is not all of the evaluation data; else empty."""
        spec = str(self.plan.get("pretrain_data", ""))
        if not spec or [spec] == sets_of(self.plan):
            return ""
        name = next((label for label, of_label in self.sets.items() if label and of_label == spec), spec)
        return name + (" (synthetic)" if self.plan.get("pretrain_synthetic") else "")

    @property
    def planned(self) -> set[str]:
        """Names of the plan's evaluation cells; empty without a plan."""
        return {cell["name"] for cell in self.plan.get("cells", ()) if cell["probe"]}

    @property
    def evaluated(self) -> set[str]:
        """Names of the cells that have a result, including those of earlier plans."""
        return {m.cell for m in self.measurements}

    def headlines(self) -> dict[tuple[str, str], Summary]:
        """Return the headline numbers by row and probe."""
        return {(s.pretext, s.probe): s for s in self.summaries if s.headline}

    def best(self, probe: str) -> set[str]:
        """Return the rows with the best headline mean of a probe, labels aside if others are there."""
        return {*best_of_probe([s for (_, name), s in self.headlines().items() if name == probe])}

    def pretrained(self) -> dict[str, dict[int, Path]]:
        """Return the folders of the evaluated encoders, by row and seed."""
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
        """Return the encoder folder of each row's first seed."""
        return {row: next(iter(seeds.values())) for row, seeds in self.pretrained().items()}

    def stages_read(self, *names: str, on: str) -> dict[str, str]:
        """Return the stage of each shown row's headline in the first of these probes that has judged it on a set."""
        headlines, probes = self.headlines(), [column(name, on) for name in names]
        judged_by = {row: [probe for probe in probes if (row, probe) in headlines] for row in self.shown}
        return {row: headlines[row, judges[0]].stage for row, judges in judged_by.items() if judges}

    @functools.cached_property
    def readings(self) -> list[Reading]:
        """Every metric at every stage; stages in the order of the encoder."""
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
                chance=mean_chance(group),
                headline=any(m.headline for m in group),
                seeds=len(group),
                n=group[0].n,
                value=interval(tables(dict(enumerate(group)))[0]),
            )
            for (row, probe, metric, stage), group in groups.items()
        ]
        place = {column: at for at, column in enumerate(column_order(r.probe for r in readings))}
        return sorted(readings, key=lambda r: (row_key(r.pretext), place[r.probe]))  # stable: keeps the order of stages

    def facts(self) -> list[tuple[str, str]]:
        """Return the facts of the run, as name and value."""
        plan, rows = self.plan, self.measurements
        facts = [
            ("Command", str(plan.get("command", ""))),
            ("Profile", str(plan.get("profile", ""))),
            ("Data", self._data()),
            ("Pretraining data", self.pretrain_data),
            ("Data fingerprint (test)", _all(m.data_fingerprint for m in rows)),
            ("Encoder", _all(m.encoder for m in rows) or str(plan.get("encoder", ""))),
            ("Image size", f"{plan['image_size']} px" if "image_size" in plan else ""),
            ("Seeds", _all(m.seed for m in rows)),
            ("Precision in training", _all(_precision(m) for m in rows)),
            ("Commit", _all(f"{m.git_sha}{' with uncommitted changes' if m.git_dirty else ''}" for m in rows)),
            ("PyTorch", _all(m.torch_version for m in rows)),
            ("Device", _all(m.device for m in rows)),
            *self._environment(),
            ("Cells evaluated", self._progress()),
            ("First cell started", min((m.started_at for m in rows), default="")),
            ("Last cell started", max((m.started_at for m in rows), default="")),
        ]
        return [(name, value) for name, value in facts if value]

    def _environment(self) -> list[tuple[str, str]]:
        """Return the hardware and software of the cells; all versions where they changed."""

        def all_of(text: Callable[[dict[str, Any]], str]) -> str:
            return "; ".join(dict.fromkeys(text(entry) for entry in self.environments))

        return [
            ("Driver", all_of(lambda e: ", ".join(filter(None, [e["driver"], e["cuda"] and f"CUDA {e['cuda']}"])))),
            ("Processor", all_of(lambda e: f"{e['processor']}, {e['cores']} cores")),
            ("Instructions", all_of(lambda e: e.get("instructions", ""))),
            (
                "Workers",
                all_of(lambda e: f"{e['workers']}, {e['threads']} thread{'s' if e['threads'] > 1 else ''} each"),
            ),
            ("System", all_of(lambda e: f"{e['system']}, {e['python']}")),
            ("Packages", all_of(lambda e: _versions(e["packages"]))),
        ]

    def _data(self) -> str:
        if len(self.sets) < 2:
            return ", ".join(self.data) + (" (synthetic)" if self.synthetic else "")
        return "; ".join(f"{name}: {spec}" for name, spec in zip(self.data, self.sets.values(), strict=True))

    def _progress(self) -> str:
        if not self.planned:
            return str(len(self.evaluated))
        earlier = len(self.evaluated - self.planned)
        more = f", and {earlier} of earlier plans" if earlier else ""
        return f"{len(self.evaluated & self.planned)} of {len(self.planned)} planned{more}"

    def notes(self) -> list[str]:
        """Return the notes of the data set and the plan."""
        return [str(note) for note in (*self.plan.get("notes", ()), *self.plan.get("left_out", ()))]


def read_run(out: Path) -> Run:
    """Read a results folder.

    Raises:
        UserError: If the folder holds neither results nor failures.
    """
    measurements = [
        dataclasses.replace(m, pretext=_printable(m.pretext), probe=_printable(m.probe))
        for m in latest(read_measurements(out))
    ]
    plan = read_plan(out)
    planned = {cell["name"] for cell in plan.get("cells", ())}
    done = {m.cell for m in measurements}
    failures = [  # only of planned cells: the folder may hold failures of earlier settings
        failure
        for failure in read_failures(out)
        if failure["cell"] not in done and (not planned or failure["cell"] in planned)
    ]
    if not measurements and not failures:
        raise UserError(f"{out}: no results to report; python benchmarks/run_all.py --out {out} computes them")
    summaries = summarise(measurements)
    costs, environments = (
        {_printable(row): cost for row, cost in read_costs(out, measurements).items()},
        read_environments(out),
    )
    return Run(out, plan, measurements, summaries, costs, failures, ranking(summaries), environments)


def _printable(name: str) -> str:
    """Return a name with `?` for bytes that are not UTF-8, which no figure or file of the report can hold."""
    return name.encode(errors="replace").decode()


def column_title(summary: Summary) -> str:
    """Return `Linear, top-1 %`."""
    return f"{probe_title(summary.probe)}, {metric_title(summary.metric, summary.unit)}"


def _versions(packages: Mapping[str, str]) -> str:
    named = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    return f"{named}; all {len(packages)} in {ENVIRONMENT}"


def _all(values: Any) -> str:
    return ", ".join(str(value) for value in sorted(set(values)) if value != "")


def _precision(measured: Measurement) -> str:
    """Return the number format in which a cell's encoder was trained, if its settings name one."""
    settings = json.loads(measured.config_json)
    asked = (settings.get(part, {}).get("precision", "auto") for part in ("probe_config", "train"))
    return next((each for each in asked if each != "auto"), "")
