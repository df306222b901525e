"""The watch curves of a comparison: their arithmetic, their figure, and that they change neither cells nor encoders."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from comparison_samples import plan, recipe
from training_samples import pictures

from benchmarks.executors.computing import compute
from benchmarks.options import Options, plan_of
from benchmarks.planning.adjusting import watched
from benchmarks.records.results import encoder_path
from benchmarks.report.plotting import style
from benchmarks.report.watch import over_seeds, watch_plots
from benchmarks.words.naming import row_title
from pretext.datasets import open_dataset
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig

TRAIN = TrainConfig(images=64, batch_size=8, workers=0, watch_every=2)
SPEC = "scenes?size=16&train=24&val=8&test=4"


def folder(where, **points):
    """Write the log of a run with these measurements, each a value by images; return the folder."""
    where.mkdir(parents=True)
    lines = [{"step": 1, "images": 8, "loss": {"task": 1.0}}]
    for name, values in points.items():
        lines += [{"step": x // 8, "images": x, "watch": {name: y}} for x, y in values.items()]
    (where / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return where


def drawn(**rows):
    """Return the watch figures of rows, each a list of run folders."""
    of_row = {name: dict(enumerate(folders)) for name, folders in rows.items()}
    with style():
        return watch_plots(SimpleNamespace(pretrained=lambda: of_row, shown=[*rows], rows=[*rows], title=row_title))


def test_a_curve_is_the_mean_of_its_seeds_with_their_range():
    curve = over_seeds([{80: 10.0, 160: 20.0}, {80: 14.0, 160: 26.0}])
    assert [list(part) for part in curve[:4]] == [[80, 160], [12, 23], [10, 20], [14, 26]]
    assert curve.seeds == 2


def test_seeds_that_end_elsewhere_meet_where_all_have_been():
    curve = over_seeds([{100: 0.0, 200: 10.0, 300: 20.0}, {150: 5.0, 250: 15.0}])  # one line, at other points
    assert list(curve.images) == [200] and list(curve.low) == list(curve.high) == [10]
    apart = over_seeds([{100: 1.0}, {300: 3.0}])
    assert len(apart.images) == 1 and np.isfinite(apart.mean).all()


def test_the_figure_says_what_was_watched_and_that_nothing_was_chosen(tmp_path):
    seeds = [folder(tmp_path / f"s{seed}", knn_top1={1600: 20.0 + seed, 3200: 30.0 + seed}) for seed in (0, 2)]
    (plot,) = drawn(rotation=seeds, kmeans=[folder(tmp_path / "none")])
    assert plot.name == "watch-knn"
    assert "Rotation from 21.0 to 31.0" in plot.alt and "K-means" not in plot.alt
    for words in ("fixed pictures of val", "No test picture was read", "no checkpoint was chosen", "mean over 2 seeds"):
        assert words in plot.caption
    (axes,) = plot.figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[21, 31]]
    (band,) = axes.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} >= {(1600, 20), (1600, 22), (3200, 30), (3200, 32)}


def test_each_measure_has_its_figure_and_none_is_drawn_without(tmp_path):
    both = [folder(tmp_path / "a", knn_top1={8: 1.0, 16: 2.0}, rank_me={8: 3.0})]
    assert [plot.name for plot in drawn(rotation=both)] == ["watch-knn", "watch-rankme"]
    assert drawn(rotation=[folder(tmp_path / "b")]) == []


def test_watching_changes_no_cell(smoke):
    spec = "scenes?size=16&train=8&val=4&test=4"
    plain, seen = (plan_of(Options(profile="smoke", data=(spec,), out=smoke, watch=watch)) for watch in (None, "knn"))
    assert [cell.name for cell in plain.cells] == [cell.name for cell in seen.cells]
    assert [cell.settings for cell in plain.cells] == [cell.settings for cell in seen.cells]
    (trained,) = [cell.train for cell in seen.cells if cell.pretext == "rotation" and cell.trains]
    assert (trained.watch, trained.watch_every) == ("knn", 1)  # two steps


def test_a_run_is_watched_ten_times_whatever_its_length():
    data = open_dataset("scenes?size=16&train=80&val=4&test=4")

    def every(**budget):
        return watched(recipe(train=TrainConfig(batch_size=8, **budget)), "rankme", data).train.watch_every

    assert every(images=8000) == every(steps=1000) == every(epochs=100) == 100
    assert every(seconds=60) == every(flops=1e12) == TrainConfig().watch_every  # its steps are not known yet


def test_watching_by_labels_that_are_not_there_is_refused(smoke, tmp_path):
    unlabelled = pictures(tmp_path / "pictures")
    with pytest.raises(UserError, match="--watch knn needs one class per picture"):
        plan_of(Options(profile="smoke", pretrain_data=unlabelled, out=smoke, watch="knn"))


@pytest.mark.slow
def test_watching_leaves_the_bytes_of_the_encoder(tmp_path):
    for name, train in (("plain", TRAIN), ("watched", dataclasses.replace(TRAIN, watch="knn"))):
        encoder, *_ = plan(rows={"rotation": "rotation"}, spec=SPEC, train=train).cells
        compute(encoder, tmp_path / name)
    plain, seen = (encoder_path(tmp_path / name, encoder.name) for name in ("plain", "watched"))
    assert plain.read_bytes() == seen.read_bytes()
    (plot,) = drawn(rotation=[seen.parent])
    assert len(plot.figure.axes[0].lines[0].get_xdata()) == 4
    assert drawn(rotation=[plain.parent]) == []
