"""The answer of `did-it-help`: sentences with intervals and costs, and a table, from a results folder alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.did_it_help.more import more_labels, more_pictures
from benchmarks.did_it_help.recipe import CONTINUED, GIVEN, OWN
from benchmarks.records.results import read_measurements, read_plan
from benchmarks.report.few_labels import figure_name
from benchmarks.report.markdown import escape, table
from benchmarks.summaries.costs import Cost, read_costs
from benchmarks.summaries.intervals import LEVEL, Interval, holm
from benchmarks.summaries.verdict import BASELINE, Summary, summarise
from benchmarks.words.naming import metric_title, row_title
from benchmarks.words.ordering import row_key
from benchmarks.words.wording import LEGEND, and_list, count_of, difference_text, duration, value_text
from pretext.system.checkpoint import atomic_write

SHARE = re.compile(r"(?P<tuned>tuned )?(?P<name>top1|mAP)@(?P<percent>[\d.]+)%")
"""Names of the scores on a share of the labels."""
SAID_WITHOUT_LABELS = (
    "RankMe says how many directions the vectors fill, alignment how alike two views of a picture are (less is more "
    "alike), and PSNR how well the nearest picture fills a hole. An encoder can be good in all three and useless for a "
    "task. Ten labelled pictures of each class and --labels give an answer; until then, look at the neighbours."
)


def write_answer(out: Path, counts: Mapping[float, int]) -> str:
    """Write OUT/answer.md, and for pictures without labels OUT/neighbours.png; return the sentences.

    Args:
        out: The results folder, with its report.
        counts: Number of labels by share in percent, from the fewest to all; not used without labels.
    """
    measurements = read_measurements(out)
    summaries, costs = summarise(measurements), read_costs(out, measurements)
    shares = [s for s in summaries if SHARE.fullmatch(s.metric)]
    if shares:
        rows = {s.pretext for s in shares}
        beside = GIVEN if GIVEN in rows else BASELINE
        against = {beside: [s for s in summarise(measurements, baseline=beside) if SHARE.fullmatch(s.metric)]}
        found = SHARE.fullmatch(shares[0].metric)
        assert found is not None
        sentences = [
            helped(against[beside], beside),
            labels_alone(shares),
            more_labels(measurements, found["name"], counts, beside),
            more_pictures(measurements, found["name"], read_plan(out).get("left_out", ())),
            cost(costs),
        ]
        body = f"{_by_share(shares, found['name'], counts)}\n\n{_table(shares)}"
        curves = out / "figures" / f"{figure_name(shares[0].probe)}.png"
        if curves.exists():
            body += f"\n\n![Score against the number of labels, by row]({curves.relative_to(out).as_posix()})"
    else:
        from benchmarks.did_it_help.neighbours import write_neighbours

        sheet = write_neighbours(out)
        sentences = [without_labels(summaries), SAID_WITHOUT_LABELS, cost(costs)]
        body = _table([s for s in summaries if s.headline or s.metric == "alignment"])
        body += f"\n\n![A picture and its nearest neighbours, by row]({sheet.name})"
    text = "\n\n".join(sentences)
    with atomic_write(out / "answer.md") as beside_file:
        beside_file.write_text(f"# Did pretraining help?\n\n{text}\n\n{body}\n", encoding="utf-8", errors="replace")
    return f"\n{text}\n{out / 'answer.md'}"


def helped(shares: Sequence[Summary], beside: str) -> str:
    """Return whether training on the pictures helped a linear probe, by Holm's correction over rows and label budgets.

    Args:
        shares: Summaries on shares of the labels, with differences from `beside`.
        beside: The row to beat: given weights, else random ones.
    """
    candidates = [CONTINUED] if beside == GIVEN else list(OWN)
    family = [s for s in shares if s.pretext in candidates and not _is_tuned(s) and s.difference is not None]
    tested = [s for s in family if s.p is not None]
    adjusted = holm([s.p for s in tested if s.p is not None])
    found = [s for s, p in zip(tested, adjusted, strict=True) if p < 1 - LEVEL]
    name = "the given weights" if beside == GIVEN else "random weights"
    if not family:
        return f"Not known: no row was compared with {name}."
    if not tested:
        return f"Not known: the differences from {name} have no interval with one seed; give --seeds 2 or more."
    better, worse = ([s for s in found if s.better is good] for good in (True, False))
    largest = max(better or tested, key=lambda s: s.difference or 0.0)
    number = f"With {_budget(largest)}, {largest.row.title} has {_difference(largest)} against {name}"
    after = f"after Holm's correction for {count_of(len(tested), 'comparison')}"
    if better:
        where = and_list([f"{s.row.title} with {_budget(s)}" for s in better])
        start = f"Yes: training on your pictures beats {name} {after} ({where}). {number}."
    else:
        start = f"Not shown: no gain over {name} is significant {after}. {number}, the largest difference."
    hurt = and_list([f"{s.row.title} with {_budget(s)}" for s in worse])
    return start + (f" Worse: {hurt}." if hurt else "")


def labels_alone(shares: Sequence[Summary]) -> str:
    """Return how fine-tuning from the best trained row compares with the labels alone: fine-tuned random weights."""
    tuned = [s for s in shares if _is_tuned(s) and float(_percent(s)) == 100]
    base = next((s for s in tuned if s.pretext == BASELINE), None)
    rows = [s for s in tuned if s.pretext in (*OWN, GIVEN) and s.difference is not None]
    if base is None or not rows:
        return "Labels alone were not compared."
    best = max(rows, key=lambda s: s.mean)
    tested = [s for s in rows if s.p is not None]
    adjusted = holm([s.p for s in tested if s.p is not None])
    sure = "not testable with one seed"
    if best in tested:
        sure = "significant" if adjusted[tested.index(best)] < 1 - LEVEL else "not significant"
        sure += f" after Holm's correction for {len(tested)}"
    return (
        f"All labels alone, fine-tuned from random weights, reach {base.mean:.1f} {base.unit}. Fine-tuned "
        f"from {best.row.title} they reach {best.mean:.1f}: {_difference(best)}, {sure}."
    )


def without_labels(summaries: Sequence[Summary]) -> str:
    """Return what differs from random weights without labels."""
    rows = [s for s in summaries if (s.headline or s.metric == "alignment") and s.pretext in (*OWN, GIVEN)]
    parts = [f"{s.metric} of {s.row.title} {s.mean:.2f}, {_difference(s)}" for s in rows]
    start = "Without labels nobody can say which encoder finds your classes better. Against random weights: "
    return start + "; ".join(parts) + "."


def cost(costs: dict[str, Cost]) -> str:
    """Return what pretraining cost for each row and seed."""
    parts = []
    for row in sorted(set(costs) & set(OWN), key=row_key):
        seconds = costs[row].cpu_s
        time = "unknown" if seconds is None else duration(seconds)
        parts.append(f"{row_title(row)} saw {costs[row].images_seen:,.0f} pictures in {time} of processor time")
    return f"Cost of pretraining for each seed: {and_list(parts)}." if parts else "No row was pretrained."


def _by_share(shares: Sequence[Summary], name: str, counts: Mapping[float, int]) -> str:
    """Return a table with a line for each row and a column for each share, and above it how it is read."""
    cells = {(s.pretext, _is_tuned(s), _percent(s)): s for s in shares}
    columns = sorted({(tuned, percent) for _, tuned, percent in cells}, key=lambda each: (each[0], float(each[1])))
    body = [
        [escape(title), *(value_text(cells[row, *each]).strip() if (row, *each) in cells else "–" for each in columns)]
        for row, title in sorted({s.pretext: s.row.title for s in shares}.items(), key=lambda item: row_key(item[0]))
    ]
    head = [f"{'fine-tuned' if tuned else 'linear'}, {percent} %" for tuned, percent in columns]
    labels = and_list([f"{counts[share]:,}" for share in sorted(counts)])
    legend = f"{metric_title(name, shares[0].unit)} by share of the labels ({labels}); {LEGEND}."
    return f"{legend}\n\n{table(['row', *head], body)}"


def _table(summaries: Sequence[Summary]) -> str:
    """Return a table with a line for each score of each row."""
    body = []
    for s in summaries:
        own = "–" if s.low is None or s.high is None else f"{s.low:.2f} to {s.high:.2f}"
        difference = ends = "–"
        if s.difference is not None:
            difference = f"{s.difference:+.2f}"
        if s.difference_low is not None and s.difference_high is not None:
            ends = f"{s.difference_low:+.2f} to {s.difference_high:+.2f}"
        names = escape(s.row.title), escape(metric_title(s.metric, s.unit))
        body.append([*names, f"{s.mean:.2f}", own, difference, ends])
    return table(["row", "score", "mean", "95 % interval", "− random", "95 % interval"], body, names=2)


def _difference(s: Summary) -> str:
    """Return a difference as `+3.1 points (95 % interval +1.0 to +5.2)`."""
    if s.difference is None:
        return "not compared"
    return difference_text(Interval(s.difference, s.difference_low, s.difference_high), s.unit)


def _budget(s: Summary) -> str:
    return f"{_percent(s)} % of the labels"


def _percent(s: Summary) -> str:
    found = SHARE.fullmatch(s.metric)
    assert found is not None
    return found["percent"]


def _is_tuned(s: Summary) -> bool:
    return s.metric.startswith("tuned ")
