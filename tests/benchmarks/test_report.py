"""The page says what the numbers say, asks for nothing from outside, and fits a telephone."""

from __future__ import annotations

import html.parser
import itertools
import json
import re

import numpy as np
import pytest
import torch
from browser import Browser, browser_path
from comparison_samples import HIGH, LOW, SPREAD, row

from benchmarks.environment import read_environments, write_environment
from benchmarks.report import FIGURE, write_report
from benchmarks.report.content import read_run
from benchmarks.report.figures import plots
from benchmarks.report.page import page
from benchmarks.report.pareto import pareto_front
from benchmarks.results import write_cell, write_failure, write_json
from pretext.system.errors import UserError

SPEC = "scenes?size=32&train=40&val=16&test=16"
VOID = {"meta", "link", "img", "br", "input", "wbr", "path", "use", "rect", "clippath"}


class Page(html.parser.HTMLParser):
    """Collects what the tests ask about: text, headings, ids, images, addresses, unclosed tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.images, self.addresses, self.words, self.wrong = [], [], [], [], [], []
        self.regions = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" or attributes.get("role") == "img" else []
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def three_rows(out, **fields):
    """Write a row that is better than random weights, one that is not, in two probes and stages."""
    for pretext, linear, knn in (
        ("random", LOW, LOW),
        ("supervised", HIGH, HIGH),
        ("rotation", SPREAD, [9.0, 11.0, 9.5, 10.0]),
    ):
        for probe, items in (("linear", linear), ("knn", knn)):
            stages = [
                row(pretext, items, probe=probe, stage="conv3", **fields),
                row(pretext, [v / 2 for v in items], probe=probe, stage="conv1", headline=False, **fields),
            ]
            write_cell(out, stages[0].cell, stages)


def written(out):
    path = write_report(out)
    assert path == out / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text), (out / "report.md").read_text(encoding="utf-8")


def test_a_folder_without_results_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no results to report; python benchmarks/run_all\.py --out") as found:
        write_report(tmp_path)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


def test_the_verdict_names_who_beats_random_weights_and_where(tmp_path):
    three_rows(tmp_path)
    text, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert "excluding zero: supervised in linear and knn." in words
        assert "Worse than random weights, by the same measure: rotation in knn." in words
        assert "Not distinguishable from random weights: rotation in linear." in words
        assert "4 comparisons" in words
    assert markdown.count("**60.0") == 2  # best of both columns
    assert text.count("<strong>60.0</strong>") == 2


def test_the_first_line_says_that_drawn_data_is_synthetic(tmp_path):
    three_rows(tmp_path)
    _, page, markdown = written(tmp_path)
    lines = [line for line in markdown.splitlines() if line]
    assert lines[0].startswith("# ")
    assert lines[1].startswith("Synthetic data")
    assert "".join(page.words[page.words.index("Pretext tasks compared") :]).startswith(
        "Pretext tasks comparedSynthetic"
    )


def test_photographs_are_not_called_synthetic(tmp_path):
    three_rows(tmp_path, data="voc:VOC2007")
    text, _, markdown = written(tmp_path)
    assert "synthetic" not in (re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL) + markdown).lower()


def test_the_page_is_whole_and_asks_for_nothing(tmp_path):
    three_rows(tmp_path)
    text, page, _ = written(tmp_path)
    assert not page.wrong
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_figures_have_words_and_take_the_colour_of_the_page(tmp_path):
    three_rows(tmp_path)
    text, page, _ = written(tmp_path)
    assert text.count("<svg") == 2  # depth of both probes; no cost and no log is known
    assert len(page.images) == 2
    assert all(len(image["aria-label"]) > 40 for image in page.images)
    assert "supervised 60.0 at conv3" in page.images[0]["aria-label"]
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#000000" not in text


def test_a_probe_that_reads_one_stage_of_each_row_has_no_line_by_stage(tmp_path):
    three_rows(tmp_path)
    for pretext, stage in (("random", "conv4"), ("supervised", "conv2")):
        measured = row(pretext, LOW, probe="robustness", stage=stage)
        write_cell(tmp_path, measured.cell, [measured])
    assert [plot.name for plot in plots(read_run(tmp_path)) if "depth" in plot.name] == ["depth-linear", "depth-knn"]


def test_how_sure_the_numbers_are_is_told_beside_them(tmp_path):
    rng = np.random.default_rng(0)
    for pretext, mean in (("random", 30), ("supervised", 80), ("rotation", 55), ("simclr", 30)):
        for probe in ("linear", "knn", "svm"):
            for seed in range(3):
                items = list(rng.normal(mean, 10, 200))
                measured = row(pretext, items, probe=probe, seed=seed)
                write_cell(tmp_path, measured.cell, [measured])
    write_json(tmp_path / "plan.json", {"cells": [], "sized": "Sized for a minute."})
    text, page, markdown = written(tmp_path)
    words = "".join(page.words)
    assert not page.wrong
    assert "stay hidden. Sized for a minute." in words
    for title in (
        "Differences from random weights",
        "Share of the way from random to supervised",
        "What could have been seen",
        "Mean ranks",
    ):
        assert title in words
        assert f"### {title}" in markdown
    assert markdown.count("▲▲") == 6  # supervised and rotation in all three probes
    assert text.count('<span class="up">▲</span><span class="up">▲</span>') == 6
    assert re.search(r"\| rotation \| (4[5-9]|5[0-5]) % \[", markdown)
    assert "| supervised | 1.00 | 1.00 |" in markdown
    assert "After Holm's correction for all 9: supervised and rotation in all 3 probes." in words
    (ranks,) = [image for image in page.images if "Critical-difference" in image["aria-label"]]
    assert "supervised 1.0; rotation 2.0" in ranks["aria-label"]


def test_retrieval_stands_beside_what_needs_no_network(tmp_path):
    plain = {"HOG": [80.0, 90.0], "raw pixels": [20.0, 25.0]}
    for seed, (pretext, items) in itertools.product((0, 1), (("random", LOW), ("supervised", HIGH))):
        shared = {"probe": "retrieval", "seed": seed}
        scores = [
            row(pretext, items, metric="precision@10", **shared),
            row(pretext, [v / 2 for v in items], metric="precision@10", stage="conv1", headline=False, **shared),
            row(pretext, [v / 3 for v in items], metric="mAP", headline=False, chance=12.5, **shared),
            row(pretext, [99.0] * 4, metric="approximate recall@10", headline=False, **shared),
        ]
        for name, values in plain.items():
            for metric, factor in (("precision@10", 1), ("mAP", 0.1)):
                ours = [factor * (values[seed] + shift) for shift in (-1, 0, 0, 1)]
                scores.append(row(pretext, ours, metric=f"{metric} by {name}", stage="", headline=False, **shared))
        write_cell(tmp_path, scores[0].cell, scores)
    text, page, markdown = written(tmp_path)
    assert not page.wrong
    assert "Retrieval, beside what needs no network" in "".join(page.words)
    table = markdown.split("### Retrieval, beside what needs no network")[1].split("###")[0]
    head, _, *lines = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|"))
    assert head == ["row", "precision@10", "mAP"]
    assert [[cell.split(" ")[0] for cell in line] for line in lines if line[0] != "raw pixels"] == [
        ["random", "30.0", "10.0"],
        ["supervised", "60.0", "20.0"],
        ["HOG", "85.0", "8.5"],
        ["chance", "10.0", "12.5"],
    ]
    (pixels,) = [line for line in lines if line[0] == "raw pixels"]
    assert pixels[1].startswith("22.5 ±")
    main = markdown.split("###")[0]
    assert "**60.0" in main  # nothing of it is a row or the best of the comparison
    assert not any(name in main for name in plain)
    assert "stage by stage" in text
    figure = next(image["aria-label"] for image in page.images if "stage" in image["aria-label"])
    assert "HOG" not in figure


def test_without_what_needs_no_network_no_table_of_it_is_made(tmp_path):
    items = row("random", LOW, probe="retrieval", metric="precision@10")
    write_cell(tmp_path, items.cell, [items])
    text, _, markdown = written(tmp_path)
    assert "needs no network" not in text + markdown


def test_what_is_worse_is_not_listed_as_a_gain_and_leads_no_way(tmp_path):
    rng = np.random.default_rng(0)
    for pretext, linear, knn in (("random", 50, 50), ("supervised", 80, 20), ("rotation", 65, 35), ("simclr", 50, 20)):
        for probe, mean in (("linear", linear), ("knn", knn)):
            for seed in range(3):
                measured = row(pretext, rng.normal(mean, 10, 200), probe=probe, seed=seed)
                write_cell(tmp_path, measured.cell, [measured])
    markdown = written(tmp_path)[2]
    assert (
        "After Holm's correction for all 6: supervised and rotation in linear; "
        "worse: supervised, rotation and simclr in knn." in markdown
    )
    shares = markdown[markdown.index("### Share of the way") :].split("\n\n")[1]
    assert shares.splitlines()[0] == "| row | linear |"  # 100 % of the way to what is worse would be no praise
    assert re.search(r"\| rotation \| (4[5-9]|5[0-5]) % \[", shares)


def test_without_random_weights_no_table_of_how_sure_is_made(tmp_path):
    write_cell(tmp_path, "a", [row("supervised", HIGH)])
    text, _, markdown = written(tmp_path)
    assert "How sure" not in text
    assert "###" not in markdown


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    three_rows(tmp_path)
    assert written(tmp_path)[0] == written(tmp_path)[0]


def test_what_failed_and_what_was_run_is_told_and_escaped(tmp_path):
    three_rows(tmp_path)
    write_failure(tmp_path, "rotation.svm.s0.0", ValueError("a <b> & c"))
    write_json(tmp_path / "plan.json", {"command": "run --data 'x<y'", "notes": ["two | <bad>"], "cells": []})
    text, page, markdown = written(tmp_path)
    words = "".join(page.words)
    for told in ("rotation.svm.s0.0", "ValueError: a <b> & c", "run --data 'x<y'", "two | <bad>"):
        assert told in words
        assert told in markdown
    assert "<b>" not in text
    assert not page.wrong


def test_failures_of_cells_that_are_no_longer_asked_for_are_not_told(tmp_path):
    three_rows(tmp_path)
    write_failure(tmp_path, "rotation.svm.s0.0", "of now")
    write_failure(tmp_path, "rotation.svm.s0.1", "of other settings")
    write_json(
        tmp_path / "plan.json", {"cells": [{"name": "rotation.svm.s0.0", "pretext": "rotation", "probe": "svm"}]}
    )
    text = written(tmp_path)[0]
    assert "of now" in text
    assert "1 of 1 planned cells has no result; failed: 1." in text
    assert "of other settings" not in text


def test_failures_alone_make_a_report(tmp_path):
    write_failure(tmp_path, "rotation.s0.0", "out of memory")
    text, _, markdown = written(tmp_path)
    assert "out of memory" in text
    assert "no cell has a result" in markdown.lower()


def test_a_folder_without_random_weights_is_not_judged(tmp_path):
    write_cell(tmp_path, "a", [row("supervised", HIGH)])
    assert "nothing can be said of gains" in written(tmp_path)[2]


def test_data_that_is_gone_leaves_the_rest(tmp_path):
    from pretext.encoders import build_encoder, save_encoder

    three_rows(tmp_path, config_json=json.dumps({"pretrain": "random.s0.0"}))
    encoder = build_encoder("alexnet?width=0.1&stem_stride=1", input_size=32, seed=0)
    save_encoder(encoder, tmp_path / "pretrain" / "random.s0.0" / "encoder.safetensors", {"task": "random"})
    gone = {"data": "voc:nowhere", "image_size": 32, "cells": []}
    write_json(tmp_path / "plan.json", gone)
    text, page, _ = written(tmp_path)
    assert "Filled holes left out:" in text
    assert "nowhere" in text
    assert sum("filters of the first layer" in image.get("alt", "") for image in page.images) == 3


def test_a_log_that_is_cut_short_costs_the_figures_and_not_the_page(tmp_path):
    three_rows(tmp_path, config_json=json.dumps({"pretrain": "random.s0.0"}))
    folder = tmp_path / "pretrain" / "random.s0.0"
    folder.mkdir(parents=True)
    (folder / "encoder.safetensors").touch()
    (folder / "log.jsonl").write_text('{"images": 1, "loss": {"ta')
    text, page, _ = written(tmp_path)
    assert "Figures left out: JSONDecodeError" in text
    assert "First-layer filters left out: " in text
    assert "excluding zero: supervised in linear and knn." in "".join(page.words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder as a run leaves it: an encoder that was trained, one that was not, sheets, logs, costs."""
    import os

    from PIL import Image

    from pretext.datasets import open_dataset
    from pretext.encoders import build_encoder, save_encoder
    from pretext.training.config import TrainConfig
    from pretext.training.loop import train

    out = tmp_path_factory.mktemp("trained")
    kept = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    spec, cells = "alexnet?width=0.1&stem_stride=1", []
    for pretext in ("random", "context_encoder"):
        maker = f"{pretext}.s0.0"
        folder = out / "pretrain" / maker
        if pretext == "random":
            save_encoder(build_encoder(spec, input_size=32, seed=0), folder / "encoder.safetensors", {"task": "random"})
        else:
            config = TrainConfig(steps=4, batch_size=8, log_every=2)
            train(pretext, spec, open_dataset(SPEC), config, folder, image_size=32)
        cells.append({"name": maker, "pretext": pretext, "probe": "", "seed": 0, "made_by": None})
        about = {"pretrain": maker, "probe_config": {"k": 3, "database": 20, "queries": 8}}
        for probe in ("linear", "retrieval", "segmentation"):
            measured = row(pretext, LOW, probe=probe, stage="conv2", data=SPEC, config_json=json.dumps(about))
            write_cell(out, measured.cell, [measured])
        sheet = out / "artifacts" / measured.cell / "segmentation.png"
        sheet.parent.mkdir(parents=True)
        Image.new("RGB", (3000, 600), "red").save(sheet)
    plan = {"data": SPEC, "image_size": 32, "synthetic": True, "bad_images": "skip", "cells": cells}
    write_json(out / "plan.json", plan)
    write_report(out)
    if kept is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = kept
    return out


def test_every_kind_of_picture_is_there(trained):
    text = (trained / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.wrong
    assert " left out:" not in text
    alts = [image.get("alt") or image["aria-label"] for image in page.images]
    assert all(alts)
    for wanted in (
        "Filled by decoders: test picture 1 as context_encoder fills it",
        "Filled by decoders: test picture 8 whole",
        "Filled from the nearest picture: test picture 1 as HOG fills it",
        "Filled from the nearest picture: test picture 8 as random fills it",
        "Nearest neighbours (objects), query: ",
        "Nearest neighbours (contexts), query: ",
        "segmentation of test pictures from the encoder of random",
        "Test picture 6 as the features of context_encoder at conv2 colour it",
        "filters of the first layer of context_encoder",
        "Training loss over pictures seen, a panel per row: context_encoder from",
        "headline number against pretraining in seconds: context_encoder",
    ):
        assert any(wanted in alt for alt in alts), wanted
    assert len(text.encode()) < 10e6


def test_neighbours_fill_holes_from_where_the_surroundings_are_most_alike(trained):
    import base64
    import io

    from PIL import Image

    from pretext.datasets import open_dataset
    from pretext.encoders import load_encoder
    from pretext.inpainting.measuring import drawn_pictures

    text = (trained / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'base64,([^"]*)" alt="[^"]*nearest picture: test picture \d as random fills it', text)
    fills = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]).astype(int)
    data = open_dataset(SPEC)
    encoder = load_encoder(trained / "pretrain" / "random.s0.0" / "encoder.safetensors").eval()

    def drawn(split, count):
        return drawn_pictures(data, split=split, image_size=32, test_images=count, seed=0, hole="central")

    def described(pictures):
        maps = encoder(pictures.shown())[1].detach().double().numpy()  # conv2
        count, channels, side, _ = maps.shape
        cells = maps.reshape(count, channels, 4, side // 4, 4, side // 4).mean(axis=(3, 5)).reshape(count, -1)
        return cells / np.linalg.norm(cells, axis=1, keepdims=True)

    def laplacian(pixels):
        return (4 * pixels - sum(np.roll(pixels, step, axis) for axis in (1, 2) for step in (1, -1)))[:, 8:24, 8:24]

    pictures, train = drawn("test", 8), drawn("train", 40)
    originals, sources = (part.images.permute(0, 2, 3, 1).numpy().astype(int) for part in (pictures, train))
    hole = pictures.holes[:, 0].numpy()
    assert fills.shape == (8, 32, 32, 3)
    assert (fills == originals)[~hole].all()
    nearest = sources[(described(pictures) @ described(train).T).argmax(axis=1)]
    cut = ((fills == 0) | (fills == 255)).any(axis=-1)
    beside = [np.roll(cut, step, axis) for axis in (1, 2) for step in (1, -1)]
    kept = ~np.any([cut, *beside], axis=0)[:, 8:24, 8:24]
    assert kept.sum() > 1500
    assert np.abs(laplacian(fills) - laplacian(nearest))[kept].max() <= 4  # blended: the gradients are the source's


def test_what_would_make_the_page_too_large_is_left_out(trained, monkeypatch):
    text = (trained / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr("benchmarks.report.page.MOST_BYTES", 300_000)
    plain = page(read_run(trained), list)
    gaps = re.findall(r"<li>([^<]*) left out: with its ([\d.]+) MB the page would be over 10 MB</li>", plain)
    assert gaps
    assert len(plain) < 320_000 < len(text)
    assert "What was run" in plain
    for title, _ in gaps:
        assert f"<h2>{title}</h2>" in text
        assert f"<h2>{title}</h2>" not in plain


def test_sheets_are_shrunk_and_keep_their_proportions(trained):
    text = (trained / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'alt="segmentation[^"]*" width="(\d+)" height="(\d+)"', text) == [("1000", "200")] * 2


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 24 rows in six probes, two of them read at several stages."""
    out = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    names = ["random", "supervised", "context_encoder:adversarial", *(f"a_task_{i}" for i in range(21))]
    cells = []
    for place, name in enumerate(names):
        for seed in range(3):
            maker = f"{name}.s{seed}.0"
            cells.append({"name": maker, "pretext": name, "probe": "", "seed": seed})
            about = {"images_seen": 10, "wall_s": 5 + place, "peak_mem_bytes": 7, "flops_per_image": 3}
            write_json(out / "pretrain" / maker / "run.json", about)
            for probe in ("linear", "knn", "svm", "fine_tune", "segmentation", "retrieval"):
                gain = 0 if name == "random" else 8.0 * (place % 4)
                items = rng.normal(40 + gain, 10, 100)
                rows = [row(name, items, probe=probe, seed=seed, stage="conv3", data=SPEC)]
                if probe in ("linear", "knn"):
                    rows.append(row(name, items / 2, probe=probe, seed=seed, stage="conv1", headline=False, data=SPEC))
                write_cell(out, rows[0].cell, rows)
    write_json(out / "plan.json", {"data": SPEC, "cells": cells})
    write_report(out)
    return out


def test_of_many_rows_the_verdict_names_a_few_and_counts_the_others(many):
    text = (many / "report.md").read_text(encoding="utf-8")
    assert text.split("\n\n")[2] == (  # every fourth row was drawn as random weights were, the others 8 and more above
        "Better than random weights, the 95\N{NO-BREAK SPACE}% interval of the difference excluding zero: "
        "18 rows in all 6 probes. "
        "Not distinguishable from random weights: "
        "a_task_1, a_task_13, a_task_17, a_task_5 and a_task_9 in all 6 probes."
    )


def test_of_many_rows_the_best_are_singled_out_in_plots(many):
    run = read_run(many)
    assert len(run.shown) == 7
    assert {"random", "supervised"} < set(run.shown)
    best = [name for name in run.ranking.ranks if name not in ("random", "supervised")][:5]
    assert set(best) < set(run.shown)
    depth = next(plot for plot in plots(run) if plot.name == "depth-linear")
    (legend,) = depth.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*run.shown, "17 others"]


def test_the_front_is_of_the_rows_that_none_beats():
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


@pytest.mark.parametrize(("seconds", "unit"), [(None, "seconds"), (30, "FLOPs")])
def test_quality_against_cost_names_the_front(tmp_path, seconds, unit):
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
        assert "from cheap to good: rotation, simclr in linear." in words
        assert f"pretraining in {unit}" in words
    corners = {"seconds": [20.0, 30.0], "FLOPs": [100.0, 200.0]}[unit]
    (steps,) = [line for line in plot.figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert list(steps.get_xdata())[1:-1] == corners
    assert list(steps.get_ydata()) == [20, 30, 50, 50]  # from random weights, which cost nothing, to the right edge


def test_figures_lie_beside_the_page_as_files(many):
    from xml.etree import ElementTree

    from PIL import Image

    folder = many / "figures"
    names = {"ranks", "cost", "depth-linear", "depth-knn"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    for path in folder.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert "<text" not in path.read_text()  # outlines: no font is asked for
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_figures_of_an_earlier_run_go_and_what_is_not_ours_stays(tmp_path):
    three_rows(tmp_path)
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("depth-svm.svg", "learning-3.png", "mine.svg", "depth-notes.txt"):
        (folder / name).write_text("")
    write_report(tmp_path)
    kept = {path.name for path in folder.iterdir()}
    assert {"mine.svg", "depth-notes.txt", "depth-linear.svg"} < kept
    assert not {"depth-svm.svg", "learning-3.png"} & kept


def test_a_long_name_of_a_user_s_own_stays_in_its_panel_and_makes_a_file_name(tmp_path):
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
    assert set(drawn) == {"cost", "depth-linear", "depth-nearest_mean-train_images=200-metric=cosine"}
    assert all(FIGURE.fullmatch(f"{made}.svg") for made in drawn)
    figure = drawn["cost"].figure
    figure.canvas.draw()
    left, right = figure.axes
    for axes, edge in ((left, right.bbox.x0), (right, figure.bbox.x1)):
        assert axes.get_tightbbox().x1 <= edge


def test_of_two_cells_of_one_seed_the_later_is_told_whatever_its_name(tmp_path):
    for name, day, value in (("z", 1, 10.0), ("a", 2, 20.0)):
        measured = row("random", value=value, cell=name, started_at=f"2026-01-0{day}T00:00:00+00:00")
        write_cell(tmp_path, name, [measured])
    assert [m.value for m in read_run(tmp_path).measurements] == [20.0]


def test_results_of_changed_code_are_marked(tmp_path):
    three_rows(tmp_path)
    assert "no commit holds" not in written(tmp_path)[2]
    write_cell(tmp_path, "rotation.knn.s0.00000000", [row("rotation", LOW, probe="knn", git_dirty=True)])
    _, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert "1 of 6 results come of code that no commit holds (rotation)." in words


def test_what_it_was_computed_with_is_told(tmp_path):
    three_rows(tmp_path)
    assert "Packages" not in written(tmp_path)[2]
    write_environment(tmp_path, workers=2, threads=1)
    write_environment(tmp_path, workers=2, threads=1)
    (entry,) = read_environments(tmp_path)
    assert entry["packages"]["numpy"] == np.__version__
    assert {"python", "system", "processor", "cores", "device", "driver", "cuda", "since"} < set(entry)
    assert entry["instructions"] == torch.backends.cpu.get_cpu_capability()
    write_environment(tmp_path, workers=4, threads=1)
    assert [each["workers"] for each in read_environments(tmp_path)] == [2, 4]
    _, page, markdown = written(tmp_path)
    for words in ("".join(page.words), markdown):
        assert "2, threads of each 1; 4, threads of each 1" in words
        assert f"numpy {np.__version__}" in words
        assert entry["instructions"] in words
    (tmp_path / "environment.json").write_text(
        json.dumps([{**entry, "instructions": ""}]).replace('"instructions"', '"x"')
    )
    assert "Instructions" not in written(tmp_path)[2]  # a folder from before they were recorded


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if browser_path() is None:
        pytest.skip("no Chromium on this machine")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["trained", "many"])
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, False), (1200, True)])
def test_a_browser_shows_it_without_complaint(browser, request, folder, width, dark):
    browser.show(request.getfixturevalue(folder) / "report.html", width=width, dark=dark, mobile=width == 360)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert browser.run(
        "[...document.querySelectorAll('svg')].every(s => s.closest('[role=img]').getAttribute('aria-label'))"
    )
    names = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].textContent)"
    before = browser.run(names)
    browser.run("document.querySelectorAll('thead button')[1].click()")
    values = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => Number(r.cells[1].dataset.value))"
    sorted_down = browser.run(values)
    assert sorted_down == sorted(sorted_down, reverse=True)
    assert sorted(browser.run(names)) == sorted(before)
    light = sum(map(int, re.findall(r"\d+", browser.run("getComputedStyle(document.body).backgroundColor"))[:3]))
    assert (light < 150) == dark
    assert browser.requests == []
    assert browser.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["trained", "many"])
def test_it_prints(browser, request, folder):
    browser.show(request.getfixturevalue(folder) / "report.html", width=1200, dark=True)
    assert browser.pdf().startswith(b"%PDF")
    folded = "document.querySelectorAll('details:not([open])').length"
    assert browser.run(folded)
    pages = browser.pdf().count(b"/Type /Page\n")
    assert browser.run(folded)  # again, on the screen
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.pdf().count(b"/Type /Page\n") == pages  # what is folded prints too
    browser.run("document.querySelectorAll('details').forEach(d => d.remove())")
    assert browser.pdf().count(b"/Type /Page\n") < pages
    browser.resize(718)  # what A4 leaves between its margins
    browser.scheme("dark", media="print")
    assert browser.run("document.documentElement.scrollWidth") == 718
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("[...document.querySelectorAll('img')].every(i => i.height < 1000)")  # a page is 1047 high


@pytest.mark.slow
def test_the_browser_would_notice(browser, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<body><div style='width:700px'>x</div><img src='file:///nowhere.png'><script>nothing.at.all</script></body>"
    )
    browser.show(tmp_path / "bad.html", width=360)
    assert browser.run("document.documentElement.scrollWidth") > 360
    assert browser.requests == ["file:///nowhere.png"]
    assert any("nothing is not defined" in complaint for complaint in browser.complaints)
