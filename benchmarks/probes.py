"""Every probe by name, those of `downstream` and `retrieval` and inpainting."""

from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks.cells import AnyProbe, Inpainting
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
