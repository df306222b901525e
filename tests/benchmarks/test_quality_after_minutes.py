"""The quality after so many minutes: both suites train for the steps that fit, are judged alike, and are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from index_samples import class_folders

from benchmarks.timing import peers, quality
from pretext.system.errors import UserError


@pytest.mark.slow
def test_both_suites_train_and_a_second_call_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "SIMCLR_BATCH", 4)
    monkeypatch.setattr(peers, "SIMCLR_SIDE", 32)
    out = tmp_path / "out"
    out.mkdir()
    data = f"folder:{class_folders(tmp_path, 20)}"
    (out / "speeds.json").write_text(json.dumps({"about": {"data": data}, "ours": 8.0, "lightly": 4.0, "workers": 0.0}))
    words = ["--data", data, "--minutes", "0.02", "0.04", "--seeds", "1"]
    quality.main([*words, "--out", str(out)])
    printed = capsys.readouterr().out
    for line in ("ours, 0.02 min, 2 steps", "ours, 0.04 min, 5 steps", "lightly, 0.02 min, 1 steps"):
        assert line in printed
    table = [line.split()[:2] for line in printed.splitlines() if line.endswith(")")]
    assert table == [["0", "random"], *([at, suite] for at in ("0.02", "0.04") for suite in ("ours", "lightly"))]
    weights = torch.load(out / "lightly-0.04min-s0.pth", weights_only=True)
    assert weights["conv1.weight"].shape == (64, 3, 7, 7) and not any(name.startswith("fc") for name in weights)
    monkeypatch.setattr(quality, "judged", lambda *_: pytest.fail("computed again"))
    quality.main([*words, "--out", str(out)])
    assert capsys.readouterr().out == printed
    with pytest.raises(UserError, match=r"ours-0\.02min-s0\.json is about .*'steps': 2}, and this command about"):
        quality.kept(out / "ours-0.02min-s0.json", {"data": data, "steps": 3}, dict)


def test_the_peers_rate_falls_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SIMCLR_BATCH", 4)
    monkeypatch.setattr(peers, "SIMCLR_SIDE", 32)
    made = []
    sgd = torch.optim.SGD

    def remember(*args: object, **named: object) -> torch.optim.SGD:
        made.append(sgd(*args, **named))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(torch.optim, "SGD", remember)
    class_folders(tmp_path / "pictures", 8)
    _, steps = peers.lightly_steps(tmp_path, 0, steps=3)
    rates = []
    for _ in range(3):
        next(steps)
        rates.append(made[0].param_groups[0]["lr"])
    assert rates == pytest.approx([0.045, 0.015, 0.0])
