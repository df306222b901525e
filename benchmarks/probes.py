"""Every probe by name, those of `downstream` and `retrieval` and inpainting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from benchmarks.cells import AnyProbe, Inpainting
from benchmarks.ordering import WITHOUT_LABELS
from pretext.datasets.base import ImageDataset
from pretext.judging import Probe, probes_in


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
