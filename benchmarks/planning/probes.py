"""Every probe by name, those of `downstream` and `retrieval` and inpainting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from benchmarks.planning.cells import AnyProbe, Inpainting
from benchmarks.words.ordering import WITHOUT_LABELS
from benchmarks.words.wording import and_list
from pretext.datasets.base import ImageDataset
from pretext.judging import Probe, probes_in
from pretext.system.errors import UserError

REMEDY = {
    "label": "sort the images into one folder per class",
    "labels": "give a data set that names its objects, such as voc: or coco:",
    "boxes": "give a data set with boxes, such as voc: or coco:",
    "masks": "give a data set with masks, such as voc: or masks:",
}
"""Advice by missing annotation."""


@cache
def probe_types() -> dict[str, type[Probe]]:
    """Return every probe of an encoder by name, from downstream and retrieval."""
    import downstream.probes
    import retrieval.probes

    return probes_in(downstream.probes) | probes_in(retrieval.probes)


def probe(name: str, **settings: Any) -> Probe:
    """Return a probe with its default settings, except `settings`."""
    return probe_types()[name](**settings)


def probe_names() -> list[str]:
    """Return every name that `--probes` accepts."""
    return sorted([*probe_types(), "inpainting"])


def default_probe(name: str) -> AnyProbe:
    """Return a probe with its default settings, for one that the profile does not include."""
    return Inpainting() if name == "inpainting" else probe(name)


def with_label_free(probes: Mapping[str, AnyProbe], data: ImageDataset) -> dict[str, AnyProbe]:
    """Return the probes, and for data without class labels also those that need no labels."""
    if data.annotations & {"label", "labels"}:
        return {**probes}
    return {name: default_probe(name) for name in WITHOUT_LABELS} | {**probes}


def usable_probes(probes: Mapping[str, AnyProbe], data: ImageDataset) -> tuple[dict[str, AnyProbe], list[str]]:
    """Return the probes that the data allows, and a sentence for those that lack the same."""
    usable: dict[str, AnyProbe] = {}
    unusable: dict[str, list[str]] = {}
    for name, protocol in probes.items():
        if isinstance(protocol, Inpainting) or protocol.can_judge(data):
            usable[name] = protocol
            continue
        needed = " or ".join(" and ".join(sorted(alternative)) for alternative in protocol.needs)
        annotated = ", ".join(sorted(data.annotations)) or "nothing"
        lacking = sorted(min(protocol.needs, key=len, default=frozenset()) - data.annotations)
        remedy = f"; {REMEDY[lacking[0]]}" if lacking else ""
        unusable.setdefault(f"{needed}, and {data.spec} annotates {annotated}{remedy}", []).append(name)
    left_out = [
        f"{_left_out(names)}: {'it needs' if len(names) == 1 else 'they need'} {reason}"
        for reason, names in unusable.items()
    ]
    if left_out and not any(isinstance(protocol, Probe) for protocol in usable.values()):
        left_out.append("probes that need no labels: --probes label_free nearest_fill inpainting")
    return usable, left_out


def judging_probes(
    probes: Mapping[str, AnyProbe], data: ImageDataset, size: int
) -> tuple[dict[str, AnyProbe], list[str]]:
    """Return the probes that can learn and score something on a data set, and a sentence for those that cannot.

    Args:
        probes: Those of `usable_probes`, by name.
        data: The data set, with pictures of any size.
        size: Side in pixels at which encoders see them.
    """
    judging: dict[str, AnyProbe] = {}
    others: dict[str, list[str]] = {}
    for name, protocol in probes.items():
        try:
            if isinstance(protocol, Probe):
                protocol.check_splits(data.split("train"), data.split("test"), size)
            judging[name] = protocol
        except UserError as error:
            others.setdefault(str(error), []).append(name)
    return judging, [f"{_left_out(names)}: {reason}" for reason, names in others.items()]


def _left_out(names: Sequence[str]) -> str:
    return f"{'probe' if len(names) == 1 else 'probes'} {and_list(names)} left out"
