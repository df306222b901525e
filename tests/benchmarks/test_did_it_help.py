"""The question whether pretraining helped: what is planned for it, and what is answered from which numbers."""

from __future__ import annotations

import pytest
from few_label_samples import COUNTS, METRICS, cells, photographs
from PIL import Image

from benchmarks import run_all
from benchmarks.did_it_help import recipe
from benchmarks.did_it_help.answer import cost, helped, labels_alone, write_answer
from benchmarks.did_it_help.command import DidItHelp
from benchmarks.records.results import read_measurements, read_plan
from benchmarks.summaries.costs import Cost
from benchmarks.summaries.verdict import summarise
from benchmarks.words.wording import value_text
from downstream.probes.low_shot import LowShot
from pretext.encoders import build_encoder, save_encoder
from pretext.system.errors import UserError

SPEC = "alexnet?width=0.1&stem_stride=2"
QUICK = ("--budget", "images=256", "--seeds", "1", "--image-size", "32", "--workers", "1", "--architecture", SPEC)


def ask(out, *words):
    return run_all.main(["did-it-help", "--out", str(out), *words])


def test_a_gain_is_said_with_its_interval_and_the_labels_alone_beside_it(tmp_path):
    cells(tmp_path, "random", (0, 0, 0, 5))
    cells(tmp_path, "context_encoder", (0, 0, 0, 5))
    cells(tmp_path, "simclr", (0, 6, 4, 8))
    said = write_answer(tmp_path, COUNTS)
    assert "Yes: training on your pictures beats random weights after Holm's correction for 6 comparisons" in said
    assert "(SimCLR with 10 % of the labels and SimCLR with 100 % of the labels)" in said
    found = next(s for s in summarise_all(tmp_path) if (s.pretext, s.metric) == ("simclr", "top1@10%"))
    ends = f"(95 % interval {found.difference_low:+.1f} to {found.difference_high:+.1f})"
    assert f"With 10 % of the labels, SimCLR has {found.difference:+.1f} points {ends} against random weights." in said
    assert "All labels alone, fine-tuned from random weights, reach 45.0 %. Fine-tuned from SimCLR they reach" in said
    assert "), significant after Holm's correction for 2." in said
    written = (tmp_path / "answer.md").read_text()
    assert f"| SimCLR | top-1 %, 10 % of the labels | {found.mean:.2f} |" in written
    texts = {(s.pretext, s.metric): value_text(s).strip() for s in summarise_all(tmp_path)}
    rows = [("random", "Random weights"), ("context_encoder", "Context encoder"), ("simclr", "SimCLR")]
    table = [
        "top-1 % by share of the labels (10, 100 and 1,000); ± half of the 95 % interval; ▲ better than random "
        "weights, ▼ worse, unmarked not distinguishable.",
        "",
        "| row | linear, 1 % | linear, 10 % | linear, 100 % | fine-tuned, 100 % |",
        "| :-- | --: | --: | --: | --: |",
        *(f"| {title} | {' | '.join(texts[row, metric] for metric in METRICS)} |" for row, title in rows),
    ]
    assert "\n".join(table) in written


def test_no_gain_and_a_loss_are_said_as_plainly(tmp_path):
    cells(tmp_path, "random", (0, 0, 0, 5))
    cells(tmp_path, "simclr", (0, 0, -9, 4.9))
    said = write_answer(tmp_path, COUNTS)
    assert "Not shown: no gain over random weights is significant after Holm's correction for 3 comparisons" in said
    assert "the largest difference. Worse: SimCLR with 100 % of the labels." in said


def test_what_one_seed_cannot_test_is_not_called_tested(tmp_path):
    cells(tmp_path, "random", (0, 0, 0, 5), seeds=1, items=1)
    cells(tmp_path, "simclr", (5, 5, 5, 9), seeds=1, items=1)
    said = write_answer(tmp_path, COUNTS)
    assert "Not known: the differences from random weights have no interval with one seed; give --seeds 2" in said
    assert "(no interval), not testable with one seed." in said and "Holm" not in said


def test_given_weights_are_what_continued_training_must_beat(tmp_path):
    cells(tmp_path, "random", (0, 0, 0, 5))
    cells(tmp_path, "given", (10, 20, 30, 30))
    cells(tmp_path, "simclr", (5, 5, 5, 5))
    cells(tmp_path, "continued", (10, 20, 24, 30))
    said = write_answer(tmp_path, COUNTS)
    assert "Not shown: no gain over the given weights is significant after Holm's correction for 3 comp" in said
    assert "Worse: continued with 100 % of the labels." in said


def test_costs_are_said_for_each_row_that_was_pretrained():
    costs = {"simclr": Cost(50_000, 60, 1, cpu_s=600), "supervised": Cost(1, 1, 1)}
    assert cost(costs) == "Cost of pretraining for each seed: SimCLR saw 50,000 pictures in 10 min of processor time."
    assert cost({}) == "No row was pretrained."


def test_nothing_compared_is_said(tmp_path):
    cells(tmp_path, "random", (0, 0, 0, 5))
    assert helped(summarise_all(tmp_path), "random") == "Not known: no row was compared with random weights."
    assert labels_alone(summarise_all(tmp_path)) == "Labels alone were not compared."


def summarise_all(out):
    return [s for s in summarise(read_measurements(out)) if "@" in s.metric]


def test_the_plan_has_the_rows_that_the_question_needs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.forecast.telling.measured", lambda cells: ())
    file = tmp_path / "given.safetensors"
    save_encoder(build_encoder(SPEC, input_size=32, seed=5), file, {})
    unlabelled, labelled = photographs(tmp_path / "u", ()), photographs(tmp_path / "l", ("a", "b"))
    words = ("--data", unlabelled, "--labels", labelled, "--encoder", str(file), "--dry-run", *QUICK[:4])
    assert ask(tmp_path / "out", *words) == 0
    printed = capsys.readouterr().out
    assert "rows: random, context_encoder, simclr, continued, given\n" in printed
    assert "probes: low_shot; seeds: 1" in printed
    assert f"on {labelled}, trained on {unlabelled}, {SPEC} at 32 px" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "{u}", "--labels", "{u}"), r"--labels \S+ has no classes; sort the images"),
        (("--data", "{u}", "--encoder", "nowhere"), "encoder file nowhere does not exist"),
        (("--data", "{u}", "--encoder", "x", "--architecture", "y"), "leave --architecture out"),
        (("--data", "{u}", "--seeds", "0"), "--seeds is 0"),
        (("--data", "nowhere:x"), "nowhere"),
    ],
)
def test_bad_requests_are_one_line(tmp_path, words, message):
    unlabelled = photographs(tmp_path / "u", ())
    with pytest.raises(UserError, match=message) as caught:
        ask(tmp_path / "out", *(word.format(u=unlabelled) for word in words))
    assert "\n" not in str(caught.value)


def test_the_flags_are_those_of_a_comparison():
    flags = DidItHelp(data="folder:u", encoder="timm:resnet18?weights=F", budget="images=9").as_options()
    assert (flags.data, flags.pretrain_data, flags.budget) == (("folder:u",), "folder:u", "images=9")
    assert flags.encoder == ("given=timm:resnet18?weights=F",)


def test_all_labels_are_passed_over_ten_times_and_the_estimate_knows_it():
    few, many = (recipe.did_it_help(labelled=count, encoder=SPEC, image_size=32) for count in (1_000, 100_000))
    assert many.expected_s["low_shot"] > 10 * few.expected_s["low_shot"]
    tuned = many.probes["low_shot"].fine_tuning(100_000)
    assert tuned.steps * tuned.batch_size == 10 * 100_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_answers_with_and_without_labels_and_resumes(tmp_path, capsys, monkeypatch):
    cheap = {"samples": 1, "steps": 2, "epochs": 0, "iterations": 5, "features": 64}
    monkeypatch.setattr(recipe, "LowShot", lambda **settings: LowShot(**settings | cheap))
    unlabelled, labelled = photographs(tmp_path / "u", (), each=720), photographs(tmp_path / "l", ("a", "b"))
    assert ask(tmp_path / "one", "--data", unlabelled, *QUICK) == 0
    said = capsys.readouterr().out
    assert "Without labels nobody can say which encoder finds your classes better." in said
    with Image.open(tmp_path / "one" / "neighbours.png") as sheet:
        assert sheet.width > 500
    assert 'href="answer.md"' in (tmp_path / "one" / "report.html").read_text()
    file = tmp_path / "given.safetensors"
    save_encoder(build_encoder(SPEC, input_size=32, seed=5), file, {})
    words = ("--data", unlabelled, "--labels", labelled, "--encoder", str(file), *QUICK[:-2])
    assert ask(tmp_path / "two", *words) == 0
    said = capsys.readouterr().out
    assert "All labels alone, fine-tuned from random weights, reach" in said
    assert "Four times the pictures, instead of 129, each shown a quarter as often, brought continued" in said
    assert "With a linear probe, the given weights need" in said
    figure = tmp_path / "two" / "figures" / "labels-low_shot.png"
    assert figure.exists() and f"(figures/{figure.name})" in (tmp_path / "two" / "answer.md").read_text()
    assert 'class="labels-low_shot"' in (tmp_path / "two" / "report.html").read_text()
    assert read_plan(tmp_path / "two")["command"].startswith("python benchmarks/run_all.py did-it-help --out")
    assert {m.pretext for m in read_measurements(tmp_path / "two")} >= {"random", "simclr", "given", "continued"}
    assert ask(tmp_path / "two", *words) == 0
    assert "all done: nothing to compute" in capsys.readouterr().out
