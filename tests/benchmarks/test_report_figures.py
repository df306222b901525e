"""Tests the report's figures, and how it names a few of many rows."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from comparison_samples import LOW, row
from matplotlib.text import Text
from report_samples import many_rows_folder, three_rows, written

from benchmarks.records.results import write_cell, write_json
from benchmarks.report import FIGURE, write_report
from benchmarks.report.content import read_run
from benchmarks.report.figures import _learning_plots, plots
from benchmarks.report.pareto import pareto_front
from benchmarks.report.plotting import blank_figure, legend_below, style, wrapped
from benchmarks.words.naming import row_title


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return many_rows_folder(tmp_path_factory.mktemp("many"))


def test_figures_have_alternative_text_and_take_the_colour_of_the_page(tmp_path):
    three_rows(tmp_path)
    text, page, _ = written(tmp_path)
    assert text.count("<svg") == 4  # two forest plots, scores by stage of both probes; there are no costs and no logs
    assert len(page.images) == 4
    assert all(len(image["aria-label"]) > 40 for image in page.images)
    assert "At the last stage, conv1: Supervised +15.0" in page.images[2]["aria-label"]
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#000000" not in text


def test_learning_curves_leave_out_what_a_watch_has_measured(tmp_path):
    lines = [{"step": 1, "images": 8, "watch": {"knn_top1": 50.0}}]
    lines += [{"step": step, "images": 8 * step, "loss": {"task": 4.0 / step}} for step in (1, 2)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (drawn,) = _learning_plots(SimpleNamespace(pretrained=lambda: {"rotation": {0: tmp_path}}, title=row_title))
    assert "Rotation from 4 to 2" in drawn.alt


def test_a_probe_with_one_stage_per_row_has_no_figure_by_stage(tmp_path):
    three_rows(tmp_path)
    for pretext, stage in (("random", "conv4"), ("supervised", "conv2")):
        measured = row(pretext, LOW, probe="robustness", stage=stage)
        write_cell(tmp_path, measured.cell, [measured])
    assert [plot.name for plot in plots(read_run(tmp_path)) if "gain" in plot.name] == ["gain-linear", "gain-knn"]


@pytest.mark.slow
def test_with_many_rows_the_verdict_names_a_few_and_counts_the_others(many):
    text = (many / "report.md").read_text(encoding="utf-8")
    verdict = (  # every fourth row equals random weights, the others are 8 or more above
        "Better than random weights (95\N{NO-BREAK SPACE}% interval of the difference excludes zero): "
        "18 rows in all 6 probes. "
        "Not distinguishable from random weights: "
        "a_task_1, a_task_13, a_task_17, a_task_5 and a_task_9 in all 6 probes."
    )
    assert verdict in text.split("\n\n")


@pytest.mark.slow
def test_with_many_rows_plots_show_the_best(many):
    run = read_run(many)
    assert len(run.shown) == 7
    assert {"random", "supervised"} < set(run.shown)
    best = [name for name in run.ranking.ranks if name not in ("random", "supervised")][:5]
    assert set(best) < set(run.shown)
    gain = next(plot for plot in plots(run) if plot.name == "gain-linear")
    (legend,) = gain.figure.legends
    compared = [wrapped(run.title(name)) for name in run.shown if name != "random"]
    assert [text.get_text() for text in legend.get_texts()] == [*compared, "17 others"]


def test_the_front_has_the_rows_that_no_other_dominates():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(1, 12))
        cost = {f"row{i}": float(c) for i, c in enumerate(rng.integers(0, 6, count))}
        quality = {f"row{i}": float(q) for i, q in enumerate(rng.integers(0, 6, count))}
        wanted = {
            name
            for name in cost
            if quality[name] == max(q for other, q in quality.items() if cost[other] <= cost[name])
            and cost[name] == min(c for other, c in cost.items() if quality[other] >= quality[name])
        }
        front = pareto_front(cost, quality | {"of no known cost": 99.0})
        assert set(front) == wanted
        assert [cost[name] for name in front] == sorted(cost[name] for name in front)


def test_a_legend_counts_one_other_row_as_one():
    figure = blank_figure(2.0)
    legend_below(figure, SimpleNamespace(shown=[], rows=["rotation"], title=row_title), figure.subplots())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1 other"]


@pytest.mark.parametrize(("seconds", "unit"), [(None, "seconds"), (30, "FLOPs")])
def test_the_cost_figure_names_the_front(tmp_path, seconds, unit):
    costs = {"supervised": (10, 5.0), "rotation": (20, 1.0), "simclr": (30, 2.0), "jigsaw": (40, 9.0)}
    means = {"random": 20, "supervised": 80, "rotation": 30, "simclr": 50, "jigsaw": 45}
    cells = []
    for name, mean in means.items():
        write_cell(tmp_path, name, [row(name, [mean - 1.0, mean + 1.0], cell=name)])
        if name in costs:
            cells.append({"name": f"{name}.s0", "pretext": name, "probe": "", "seed": 0})
            wall_s, flops = costs[name]
            run = {"images_seen": 100, "wall_s": wall_s, "flops_per_image": flops, "peak_mem_bytes": 7}
            write_json(tmp_path / "pretrain" / f"{name}.s0" / "run.json", run | {"train_config": {"seconds": seconds}})
    write_json(tmp_path / "plan.json", {"cells": cells})
    (plot,) = [plot for plot in plots(read_run(tmp_path)) if plot.name == "cost"]
    for words in (plot.alt, plot.caption):
        assert "by increasing cost: Rotation, SimCLR in Linear." in words
        assert f"pretraining cost in {unit}" in words
    corners = {"seconds": [20.0, 30.0], "FLOPs": [100.0, 200.0]}[unit]
    (steps,) = [line for line in plot.figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert list(steps.get_xdata())[1:-1] == corners
    assert list(steps.get_ydata()) == [20, 30, 50, 50]  # from random weights at no cost to the right edge


def test_random_weights_alone_are_a_dashed_line_and_no_front(tmp_path):
    for name, mean in {"random": 40, "rotation": 30}.items():
        write_cell(tmp_path, name, [row(name, [mean - 1.0, mean + 1.0], cell=name)])
    run = {"images_seen": 100, "wall_s": 20, "flops_per_image": 1.0, "peak_mem_bytes": 7}
    write_json(tmp_path / "pretrain" / "rotation.s0" / "run.json", run | {"train_config": {"seconds": None}})
    write_json(
        tmp_path / "plan.json", {"cells": [{"name": "rotation.s0", "pretext": "rotation", "probe": "", "seed": 0}]}
    )
    (plot,) = [plot for plot in plots(read_run(tmp_path)) if plot.name == "cost"]
    lines = plot.figure.axes[0].lines
    assert [line.get_linestyle() for line in lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 40] == [
        "--"
    ]
    assert not [line for line in lines if line.get_drawstyle() == "steps-post"]


@pytest.mark.slow
def test_figures_are_written_as_files(many):
    from xml.etree import ElementTree

    from PIL import Image

    folder = many / "figures"
    names = {"forest", "forest-narrow", "ranks", "cost", "gain-linear", "gain-knn"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    for path in folder.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert "<text" not in path.read_text()  # text as outlines, independent of fonts
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_figures_of_an_earlier_run_are_removed_and_other_files_stay(tmp_path):
    three_rows(tmp_path)
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("depth-svm.svg", "learning-3.png", "mine.svg", "depth-notes.txt"):
        (folder / name).write_text("")
    write_report(tmp_path)
    kept = {path.name for path in folder.iterdir()}
    assert {"mine.svg", "depth-notes.txt", "gain-linear.svg"} < kept
    assert not {"depth-svm.svg", "learning-3.png"} & kept


@pytest.mark.parametrize("sets", [["scenes"], ["scenes", "coco:photos/photographs-of-birds-and-boats"]])
def test_no_text_leaves_a_figure_however_long_the_names(sets, tmp_path):
    long = "context_encoder?mask=central&decoder_width=0.25&crop_min=0.3&flip=0.5"
    for pretext in ("random", "supervised", long, f"{long}&label_smoothing=0.1", "a_name_without_any_mark_" * 3):
        for probe, spec in itertools.product(("linear", "knn", "svm"), sets):
            of = {"data": spec, "data_fingerprint": spec}
            stages = [row(pretext, LOW, probe=probe, stage=stage, headline=stage == "b", **of) for stage in "ab"]
            write_cell(tmp_path, f"{stages[0].cell}{len(spec)}", stages)
    write_json(tmp_path / "plan.json", {"data": sets, "cells": []})
    drawn = plots(read_run(tmp_path))
    names = {plot.name for plot in drawn}
    assert names >= {"forest", "ranks"} and len([name for name in names if name.startswith("gain-")]) == 3 * len(sets)
    for plot in drawn:
        with style():
            plot.figure.draw_without_rendering()
        frame = plot.figure.bbox
        beyond = {
            label
            for axis in (axis for axes in plot.figure.axes for axis in (axes.xaxis, axes.yaxis))
            for tick in axis.get_major_ticks()
            for label in (tick.label1, tick.label2)
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        }  # are not drawn
        for text in plot.figure.findobj(Text):
            if text.get_text() and text.get_visible() and text not in beyond:
                box = text.get_window_extent()
                assert box.x0 >= frame.x0 - 6 and box.x1 <= frame.x1 + 6, (plot.name, text.get_text())
                assert box.y0 >= frame.y0 - 6 and box.y1 <= frame.y1 + 6, (plot.name, text.get_text())


def test_long_names_stay_in_their_panel_and_give_valid_file_names(tmp_path):
    name = "nearest_mean?train_images=200&metric=cosine"
    cells = []
    for place, pretext in enumerate(("random", "rotation", "mean_colour:whole?crop_min=0.9&more=words_without_end")):
        for probe in ("linear", name):
            stages = [row(pretext, LOW, probe=probe, stage=stage, headline=stage == "b") for stage in "ab"]
            write_cell(tmp_path, f"{place}.{probe[:6]}", stages)
        if place:
            cells.append({"name": str(place), "pretext": pretext, "probe": "", "seed": 0})
            run = {"images_seen": place, "wall_s": place, "flops_per_image": 1, "peak_mem_bytes": 7}
            write_json(tmp_path / "pretrain" / str(place) / "run.json", run)
    write_json(tmp_path / "plan.json", {"cells": cells})
    drawn = {plot.name: plot for plot in plots(read_run(tmp_path))}
    assert set(drawn) == {
        "forest",
        "forest-narrow",
        "cost",
        "gain-linear",
        "gain-nearest_mean-train_images=200-metric=cosine",
    }
    assert all(FIGURE.fullmatch(f"{made}.svg") for made in drawn)
    figure = drawn["cost"].figure
    figure.canvas.draw()
    left, right = figure.axes
    for axes, edge in ((left, right.bbox.x0), (right, figure.bbox.x1)):
        assert axes.get_tightbbox().x1 <= edge
