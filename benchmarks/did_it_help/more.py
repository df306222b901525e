"""What more labels and more pictures would bring, in sentences made from the scores on shares of the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.did_it_help.fewer import TIMES, fewer_name
from benchmarks.did_it_help.recipe import CONTINUED, GIVEN, MAIN, OWN
from benchmarks.records.results import Measurement
from benchmarks.summaries.intervals import Interval
from benchmarks.summaries.label_curves import Worth, gains, labels_worth
from benchmarks.summaries.verdict import Summary, one_per_seed, summarise, tables
from benchmarks.words.naming import row_title
from benchmarks.words.wording import difference_text, number_word
from pretext.system.specs import parse_spec

SHARE = 10.0
"""Share of the labels in percent at which a row's worth and four times the pictures are stated."""
ALL = 100.0
NOT_MEASURED = "What more labels would bring was not measured."
PROTOCOLS = {"": "a linear probe", "tuned ": "fine-tuning"}
"""Names of the two ways to use labels, by the first word of the metric."""


def more_labels(measurements: Sequence[Measurement], name: str, counts: Mapping[float, int], beside: str) -> str:
    """Return what ten times the labels brought, and how many labels pretraining was worth.

    Args:
        measurements: The measurements of the comparison.
        name: The metric: top1 or mAP.
        counts: Number of labels by share in percent, from the fewest to all.
        beside: The row to beat: given weights, else random ones.
    """
    if not counts or counts[SHARE] == counts[ALL]:  # a label of each class is all there is
        return NOT_MEASURED
    sentences = []
    base = "the given weights" if beside == GIVEN else "random weights"
    worth = []
    for start, way in PROTOCOLS.items():
        by_share = {share: f"{start}{name}@{share:g}%" for share in counts}
        best = _best(measurements, by_share[SHARE], beside)
        probe = next((m.probe for m in measurements if m.metric == by_share[SHARE]), "")
        if not best:
            continue
        brought = gains(measurements, probe, by_share[SHARE], by_share[ALL])
        if not start and {best, beside} <= brought.keys():
            gain, other = brought[best], difference_text(brought[beside], "%")
            sentences.append(
                f"{counts[ALL]:,} labels instead of {counts[SHARE]:,} brought {base} {other}, and {row_title(best)} "
                f"{difference_text(gain, '%')}, with {way}."
            )
        chosen = one_per_seed(measurements)
        curves = [chosen.get((beside, probe, metric), {}) for metric in by_share.values()]
        if all(curves):
            reached, *curve = tables(chosen[best, probe, by_share[SHARE]], *curves)
            found = labels_worth(reached, dict(zip(counts.values(), curve, strict=True)))
            need = _labels(found, [*counts.values()])
            worth.append(f"with {way}, {base} need {need} for what {row_title(best)} reaches with {counts[SHARE]:,}")
    if worth:
        text = "; ".join(worth)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    return " ".join(sentences) or NOT_MEASURED


def more_pictures(measurements: Sequence[Measurement], name: str, left_out: Sequence[str]) -> str:
    """Return what four times the pictures brought the row that was trained on a quarter of them too.

    Args:
        measurements: The measurements of the comparison.
        name: The metric: top1 or mAP.
        left_out: The plan's sentences on rows that were left out.
    """
    for row in (CONTINUED, MAIN):
        fewer, metric = fewer_name(row), f"{name}@{SHARE:g}%"
        about = [s for s in summarise(measurements, baseline=fewer) if (s.pretext, s.metric) == (row, metric)]
        if about and about[0].difference is not None:
            limit = next(parse_spec(m.pretrain_data).options["limit"] for m in measurements if m.pretext == fewer)
            return _of_pictures(about[0], int(limit))
        for sentence in left_out:
            start, _, why = sentence.partition(" left out: ")
            if start == f"row {fewer}":
                return f"What more pictures would bring was not measured: {why}."
    return "What more pictures would bring was not measured."


def _of_pictures(s: Summary, limit: int) -> str:
    assert s.difference is not None
    found = Interval(s.difference, s.difference_low, s.difference_high, s.p)
    meaning = {
        True: "More different pictures helped.",
        False: "Fewer pictures, shown more often, were better.",
        None: "Not significant: no gain by more pictures is shown.",
    }
    return (
        f"{number_word(TIMES).capitalize()} times the pictures, instead of {limit:,}, each shown a quarter as often, "
        f"brought {s.row.title} {difference_text(found, s.unit)} with {SHARE:g} % of the labels and "
        f"{PROTOCOLS['']}. {meaning[s.better]}"
    )


def _best(measurements: Sequence[Measurement], metric: str, beside: str) -> str:
    """Return the row with the best mean among those trained on these pictures; empty without one."""
    candidates = [CONTINUED] if beside == GIVEN else OWN
    rows = [s for s in summarise(measurements) if s.metric == metric and s.pretext in candidates]
    return max(rows, key=lambda s: s.mean).pretext if rows else ""


def _labels(worth: Worth, counts: Sequence[int]) -> str:
    """Return numbers of labels as `about 310 labels (95 % interval 180 to more than all 720)`."""

    def text(labels: float) -> str:
        if labels == math.inf:
            return f"more than all {counts[-1]:,}"
        return f"fewer than {counts[0]:,}" if labels == 0 else f"{min(float(f'{labels:.2g}'), counts[-1]):,.0f}"

    about = f"{'' if worth.labels in (0, math.inf) else 'about '}{text(worth.labels)} labels"
    if worth.low is None or worth.high is None:
        return f"{about} (no interval)"
    same = worth.low == worth.high
    return f"{about} (95 % interval {'the same' if same else f'{text(worth.low)} to {text(worth.high)}'})"
