"""What each probe had: labels, steps, test items; read from the settings in the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.report.content import Run


def protocol(run: Run, probe: str) -> list[str]:
    """Return a probe's labels, training steps and test items, as `1,000 labels`, `750 steps`, `4,000 test`.

    What its settings do not hold is left out; the number of test items is always there.
    """
    rows = [m for m in run.measurements if m.probe == probe and m.headline]
    if not rows:
        return []
    settings: Mapping[str, Any] = json.loads(rows[0].config_json).get("probe_config", {})
    most = run.plan.get("train_pictures", {}).get(rows[0].data)
    found = []
    if "train_images" in settings:
        count = settings["train_images"]
        count = most if most is not None and not 0 < count < most else count
        found.append(f"{count:,} labels" if count else "all labels")
    if "database" in settings:
        few = most is not None and most < settings["database"]  # a picture may show several objects, or none
        found.append(f"{'up to ' if few else ''}{settings['database']:,} searched")
    if "steps" in settings:
        found.append(f"{settings['steps']:,} steps{' or more' if settings.get('epochs') else ''}")
    if "precision" in settings:
        found.append(settings["precision"])
    return [*found, f"{rows[0].n:,} test"]
