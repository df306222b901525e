"""The names that people read, of rows, probes and metrics.

A task or a probe declares its name in its own file; the names are read from the source text, without an import.
"""

from __future__ import annotations

from functools import cache

from pretext.system import catalogue

PLAIN_TITLES = {"hog": "HOG", "pixels": "Raw pixels"}
"""Names of the rows without a network."""
ENCODERS = {"alexnet": "AlexNet", "released": "the authors' AlexNet"}
"""Names of the suite's own architectures."""
METRICS = {"top1": "top-1", "top5": "top-5"}
"""Names of metrics that are written otherwise than in results.csv."""


@cache
def row_title(row: str) -> str:
    """Return the name that people read: `Context encoder + adversary` for `context_encoder:adversarial`.

    Options stay, in brackets. A row that is no task of the suite keeps its name: its user has chosen it.
    """
    kind, _, options = row.partition("?")
    name, colon, variant = kind.partition(":")
    task = _tasks().get(name)
    if task is None or (colon and variant not in task.variants):
        return PLAIN_TITLES.get(row, row)
    title, options = task.title(variant), options.replace("&", ", ")
    if not options:
        return title
    return f"{title[:-1]}, {options})" if title.endswith(")") else f"{title} ({options})"


@cache
def probe_title(probe: str) -> str:
    """Return the name that people read: `Fine-tuning` for `fine_tune`; a probe in a user's file keeps its name."""
    title = _probes().get(probe)
    return probe if title is None else title or probe.replace("_", " ").capitalize()


def encoder_title(spec: str) -> str:
    """Return an architecture as people write it: `AlexNet (width 0.25)` for `alexnet?width=0.25`."""
    kind, _, options = spec.partition("?")
    name = ENCODERS.get(kind, kind.partition(":")[2] or kind)
    settings = ", ".join(option.replace("=", " ").replace("_", " ") for option in options.split("&"))
    return f"{name} ({settings})" if options else name


def metric_title(metric: str) -> str:
    """Return the name that people read: `top-1` for `top1`."""
    return METRICS.get(metric, metric)


@cache
def _tasks() -> dict[str, catalogue.DeclaredTask]:
    return catalogue.declared_tasks()


@cache
def _probes() -> dict[str, str]:
    """Return the name of every probe of the suite; empty where its file gives none."""
    packages = ("downstream.probes", "retrieval.probes")
    found = {name: probe for package in packages for name, probe in catalogue.declared_probes(package).items()}
    return {"inpainting": ""} | {name: probe.value("title", "") for name, probe in found.items()}
