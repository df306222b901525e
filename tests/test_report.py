"""The page says what the numbers say, asks for nothing from outside, and fits a telephone."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from test_verdict import row

from benchmarks.report import write_report
from benchmarks.results import write_cell, write_failure, write_json
from pretext.errors import UserError

SPEC = "scenes?size=32&train=40&val=16&test=16"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VOID = {"meta", "link", "img", "br", "input", "wbr", "path", "use", "rect", "clippath"}
HIGH, LOW, SPREAD = [61.0, 60.0, 59.0, 60.0], [30.0, 31.0, 29.0, 30.0], [10.0, 50.0, 20.0, 41.0]


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


def test_how_sure_the_numbers_are_is_told_beside_them(tmp_path):
    rng = np.random.default_rng(0)
    for pretext, mean in (("random", 30), ("supervised", 80), ("rotation", 55), ("simclr", 30)):
        for probe in ("linear", "knn", "svm"):
            for seed in range(3):
                items = list(rng.normal(mean, 10, 200))
                measured = row(pretext, items, probe=probe, seed=seed)
                write_cell(tmp_path, measured.cell, [measured])
    text, page, markdown = written(tmp_path)
    words = "".join(page.words)
    assert not page.wrong
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
    assert "1 of 1 planned cells have no result; failed: 1." in text
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
    from pretext.train import train
    from pretext.train_config import TrainConfig

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
        "Test picture 1 as context_encoder fills it",
        "Test picture 8, whole",
        "Nearest neighbours (objects), query: ",
        "Nearest neighbours (contexts), query: ",
        "segmentation of test pictures from the encoder of random",
        "filters of the first layer of context_encoder",
        "Training loss over pictures seen, a panel per row: context_encoder from",
        "headline number against pretraining time: context_encoder",
    ):
        assert any(wanted in alt for alt in alts), wanted
    assert len(text.encode()) < 10e6


def test_sheets_are_shrunk_and_keep_their_proportions(trained):
    text = (trained / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'alt="segmentation[^"]*" width="(\d+)" height="(\d+)"', text) == [("1000", "200")] * 2


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_window(trained, tmp_path, width):
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    measure = (
        "<script>document.querySelectorAll('details').forEach(d => d.open = true);"
        "document.querySelectorAll('thead button')[1].click();"
        "const rows = [...document.querySelectorAll('tbody th')].slice(0, 2).map(t => t.textContent);"
        "document.title = ['measured', document.documentElement.scrollWidth, innerWidth,"
        " ...rows].join(' ');</script>"
    )
    page = (trained / "report.html").read_text(encoding="utf-8").replace("</body>", f"{measure}</body>")
    (tmp_path / "inner.html").write_text(page, encoding="utf-8")
    # a window cannot be made as narrow as a telephone: a frame can
    outer = (
        f'<iframe id="f" src="inner.html" style="width:{width}px;height:900px;border:0"></iframe><pre></pre>'
        "<script>f.onload = () => document.querySelector('pre').textContent = f.contentDocument.title</script>"
    )
    (tmp_path / "outer.html").write_text(outer, encoding="utf-8")
    printed = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
         (tmp_path / "outer.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"measured (\d+) (\d+) (\w+) (\w+)", printed.stdout)
    assert found, printed.stderr[-2000:]
    assert int(found[1]) <= int(found[2]) == width
