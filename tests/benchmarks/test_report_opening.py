"""The report's first screen: what was compared, the forest plot, the probes' own training, and the ways out."""

from __future__ import annotations

import json
import math
from urllib.parse import unquote

import numpy as np
import pytest
from comparison_samples import HIGH, LOW, row
from matplotlib.colors import to_hex
from report_samples import three_rows, written

from benchmarks.records.results import write_cell, write_json
from benchmarks.report.content import read_run
from benchmarks.report.figures import plots
from benchmarks.report.fits import fit_plots, late_change
from benchmarks.report.forest import BETTER, REFERENCE, WORSE
from benchmarks.report.plotting import PAPER
from benchmarks.report.protocols import protocol
from benchmarks.report.sentences import setting_sentence, without_labels

SETTINGS = json.dumps({"probe_config": {"train_images": 1000, "steps": 750}})


def trained(out, means, *, probes=("linear",), seeds=3, **fields):
    """Write rows of normal scores around `means`, with the records of their training."""
    rng = np.random.default_rng(0)
    cells = []
    for name, mean in means.items():
        more = {"config_json": '{"foreign": "weights"}'} if name == "mine" else {}
        maker = f"{name.replace(':', '-')}.s0"
        cells.append({"name": maker, "pretext": name, "probe": "", "seed": 0})
        run = {"images_seen": 80_000, "wall_s": 90, "cpu_s": 47, "peak_mem_bytes": 7}
        if name not in ("hog", "mine"):
            write_json(out / "pretrain" / maker / "run.json", run)
        for probe in probes:
            for seed in range(seeds):
                measured = row(name, rng.normal(mean, 10, 200), probe=probe, seed=seed, **more | fields)
                write_cell(out, measured.cell.replace(":", "-"), [measured])
    plan = {"encoder": "alexnet?width=0.25", "image_size": 32, "synthetic": True, "cells": cells}
    write_json(out / "plan.json", plan)
    return read_run(out)


def test_the_first_sentence_says_what_was_compared(tmp_path):
    run = trained(tmp_path, {"random": 30, "supervised": 80, "hog": 30, "kmeans": 30, "simclr": 60, "mine": 50})
    assert setting_sentence(run) == (
        "One way to train AlexNet (width 0.25) without labels, on 80,000 drawn pictures of 32 px, and one given "
        "encoder, with three seeds; beside untrained random weights, training with labels, HOG and K-means filters."
    )
    text, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert words.index("One way to train") < words.index("Best without labels in Linear: SimCLR.")
    assert markdown.index("Best without labels in Linear: SimCLR.") < markdown.index("| row")
    assert text.index('class="forest"') < text.index("<table")
    assert '<tr class="reference"><th scope="row">Random weights</th>' in text
    assert '<tr class="ruled"><th scope="row">HOG</th>' in text


def test_the_forest_plot_shows_every_difference_with_its_interval(tmp_path):
    run = trained(tmp_path, {"random": 50, "supervised": 90, "simclr": 55, "rotation": 50.5, "jigsaw": 44})
    plot, narrow = plots(run)[:2]
    assert (plot.name, narrow.name) == ("forest", "forest-narrow")
    (axes,) = plot.figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Supervised", "Rotation", "SimCLR", "Jigsaw"]
    assert axes.get_yticklabels()[0].get_color() == REFERENCE
    found = {s.pretext: s for s in run.summaries if s.difference is not None}
    marks = {round(line.get_xdata()[0], 6): line for line in axes.lines if line.get_marker() == "o"}
    bars = {tuple(np.round(line.get_xdata(), 6)) for line in axes.lines if len(line.get_xdata()) == 2}
    for name, colour, filled in (("simclr", BETTER, True), ("jigsaw", WORSE, True), ("rotation", None, False)):
        one, mark = found[name], marks[round(found[name].difference, 6)]
        assert bool(one.survives_holm) == filled
        assert (to_hex(mark.get_markerfacecolor()) == PAPER) != filled
        assert colour is None or mark.get_color() == colour
        assert (round(one.difference_low, 6), round(one.difference_high, 6)) in bars
    (beyond,) = [text.get_text() for text in axes.texts]  # labels leave the frame, which fits the other rows
    assert beyond == f"{found['supervised'].difference:+.1f} →"
    assert f"SimCLR {found['simclr'].difference:+.1f} (sure)" in plot.alt
    assert "Rotation +" in plot.alt or "Rotation -" in plot.alt


def test_a_lower_loss_is_on_the_right_and_rows_without_intervals_have_open_marks(tmp_path):
    run = trained(tmp_path, {"random": 50, "simclr": 40}, higher_is_better=False)
    (axes,) = plots(run)[0].figure.axes
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    single = tmp_path / "single"
    for name, value in (("random", 1.0), ("simclr", 5.0)):
        measured = row(name, value=value)
        write_cell(single, measured.cell, [measured])
    (axes,) = plots(read_run(single))[0].figure.axes
    (mark,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert to_hex(mark.get_markerfacecolor()) == PAPER


def test_every_column_says_what_its_probe_had(tmp_path):
    run = trained(tmp_path, {"random": 30, "simclr": 60}, config_json=SETTINGS)
    assert protocol(run, "linear") == ["1,000 labels", "750 steps", "200 test"]
    assert protocol(run, "no such probe") == []
    text, _, markdown = written(tmp_path)
    assert "Linear (top-1 %; 1,000 labels; 750 steps; 200 test)" in markdown
    assert "<small>1,000 labels</small><small>750 steps</small><small>200 test</small>" in text
    assert "Linear: 1,000 labels, 750 steps, 200 test." in (tmp_path / "report.tex").read_text(encoding="utf-8")


@pytest.mark.parametrize(("epochs", "said"), [(10.0, "500 steps or more"), (0, "500 steps")])
def test_steps_that_follow_the_number_of_labels_are_a_minimum(tmp_path, epochs, said):
    settings = json.dumps({"probe_config": {"steps": 500, "epochs": epochs}})
    run = trained(tmp_path, {"random": 30}, probes=("low_shot",), config_json=settings)
    assert protocol(run, "low_shot") == [said, "200 test"]


def test_a_data_set_without_labels_opens_with_pictures_and_says_what_fell_away(tmp_path):
    run = trained(tmp_path, {"random": 30, "simclr": 60}, probes=("label_free", "nearest_fill"))
    assert "no labels" in without_labels(run)
    plan = json.loads((tmp_path / "plan.json").read_text())
    write_json(tmp_path / "plan.json", plan | {"left_out": ["row supervised left out: no classes"]})
    text, page, _ = written(tmp_path)
    words = "".join(page.words)
    assert "no probe can say which encoder is best" in words
    assert "Best without labels" not in words
    assert text.index("row supervised left out") < text.index('<section id="results">') < text.index('class="forest"')
    assert not without_labels(trained(tmp_path / "other", {"random": 30, "simclr": 60}))


def test_the_change_over_the_last_fifth_is_that_of_the_mean_losses():
    assert late_change(np.full(50, 2.0)) == 0
    assert math.isclose(late_change(np.r_[np.full(40, 2.0), np.full(10, 1.5)]), -0.25)
    assert late_change(np.zeros(10)) == 0


@pytest.mark.slow
def test_a_fitted_probe_has_a_figure_of_its_own_training(tmp_path, capsys):
    run = trained(tmp_path, {"random": 30, "simclr": 60}, probes=("fine_tune", "knn"), seeds=2)
    for name, last in (("random", 1.0), ("simclr", 0.5)):
        for seed in range(2):
            folder = tmp_path / "artifacts" / f"{name}.fine_tune.s{seed}.00000000"
            folder.mkdir(parents=True)
            (folder / "curve.json").write_text(json.dumps({"loss": [1.0] * 80 + [last] * 20}))
    (plot,) = [plot for plot in plots(run) if plot.name.startswith("fit-")]
    assert plot.name == "fit-fine_tune"
    assert "Random weights +0 %, SimCLR -50 %" in plot.alt
    assert "changed by -50 % (SimCLR) to +0 % (Random weights)" in plot.caption
    text = written(tmp_path)[0]
    assert 'class="fit-fine_tune"' in text
    (tmp_path / "artifacts" / "random.fine_tune.s0.00000000" / "curve.json").write_text("{")
    assert 'class="fit-fine_tune"' in written(tmp_path)[0]
    assert "curve.json: " in capsys.readouterr().err


def test_a_probe_on_few_labels_has_a_panel_for_each_number_of_labels(tmp_path):
    run = trained(tmp_path, {"random": 30, "simclr": 60}, probes=("low_shot",), seeds=2)
    ends = {"10% sample 0": 1.0, "10% sample 1": 0.5, "5% sample 0": 0.5, "k=4 sample 0": 0.25}
    for name in ("random", "simclr"):
        for seed in range(2):
            for sample, last in ends.items():
                folder = tmp_path / "artifacts" / f"{name}.low_shot.s{seed}.00000000" / sample
                folder.mkdir(parents=True)
                (folder / "curve.json").write_text(json.dumps({"loss": [1.0] * 80 + [last] * 20}))
    (plot,) = fit_plots(run)
    panels = plot.figure.get_axes()
    titles = ["5 % of the labels", "10 % of the labels", "4 labels of each class"]
    assert [axes.get_title(loc="left").replace("\n", " ") for axes in panels] == titles
    for axes, last in zip(panels, (0.5, 0.75, 0.25), strict=True):
        assert [line.get_ydata()[-1] for line in axes.get_lines()] == [last, last]
    ranges = [f"-{part} % (Random weights) to -{part} % (Random weights)" for part in (50, 25, 75)]
    assert "; ".join(map(" with ".join, zip(ranges, titles, strict=True))) in plot.caption
    assert "mean over seeds and samples of labels" in plot.caption


def test_links_lead_to_files_of_the_folder(tmp_path):
    out = tmp_path / "a folder?"
    three_rows(out, config_json=json.dumps({"pretrain": "random.s0.0"}))
    folder = out / "pretrain" / "random.s0.0"
    folder.mkdir(parents=True)
    (folder / "encoder.safetensors").touch()
    (folder / "log.jsonl").touch()
    _, page, _ = written(out)
    (out / "results.csv").touch()
    (out / "summary.csv").touch()
    files = {address for address in page.addresses if not address.startswith(("#", "data:"))}
    assert {"report.tex", "figures/forest.svg", "pretrain/random.s0.0/encoder.safetensors"} <= files
    assert "pretrain/random.s0.0/log.jsonl" in files
    assert not [address for address in files if not (out / unquote(address)).exists()]
    assert f"python benchmarks/run_all.py reproduce random.knn.s0.00000000 --out '{out}'" in "".join(page.words)


@pytest.mark.parametrize("rows", [{"supervised": HIGH}, {"random": LOW}])
def test_with_nothing_to_compare_there_is_no_forest(tmp_path, rows):
    for name, items in rows.items():
        measured = row(name, items)
        write_cell(tmp_path, measured.cell, [measured])
    assert "forest" not in [plot.name for plot in plots(read_run(tmp_path))]
    assert setting_sentence(read_run(tmp_path)) == ""
