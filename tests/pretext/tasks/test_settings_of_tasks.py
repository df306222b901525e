"""Settings of tasks: faults in `training_defaults` of a file of one's own, and the bound of widths."""

from __future__ import annotations

import dataclasses

import pytest
from module_samples import example

from pretext.__main__ import main
from pretext.system.errors import UserError
from pretext.tasks import task_class, task_config, task_names

WIDE = [
    (name, field.name)
    for name in task_names()
    if ":" not in name
    for field in dataclasses.fields(task_class(name).Config)
    if field.name.endswith("hidden")
]


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"": {"lr": 0.1}}, "unknown setting 'lr'; known: accumulate, .*learning_rate"),
        ({"": {"batch_sise": 64}}, "unknown setting 'batch_sise'; did you mean 'batch_size'"),
        ({"": {"out": "runs"}}, "unknown setting 'out'"),
        ({"": {5: 1}}, "unknown setting 5"),
        ({"": {"batch_size": 0}}, "batch_size is 0; allowed is above 0"),
        ({"": {"batch_size": "many"}}, "batch_size=many: expected a whole number"),
        ({"": {"optimizer": "lamb"}}, "optimizer=lamb: expected one of adamw, adam, sgd"),
        ({"": {"image_size": "x"}}, "image_size is 'x'; give a whole number"),
        ({"small": {"batch_size": 64}}, "no use for 'small', which is no variant"),
        ({"batch_size": 64}, "give settings by variant, such as"),
        (3, "give settings by variant, such as"),
    ],
)
def test_a_fault_in_training_defaults_is_one_line(defaults, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = example("task").replace("    def __init__", f"    training_defaults = {defaults!r}\n\n    def __init__", 1)
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(UserError, match=rf"own\.py: training_defaults.*{message}") as caught:
        main(["train", "own.py", "--data", "scenes"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "field"), WIDE)
def test_the_bound_of_a_width_is_the_one_that_holds(name, field):
    with pytest.raises(ValueError, match=rf"{field} is 0; allowed is from \d to \d+$") as caught:
        task_class(name).Config(**{field: 0})
    most = int(str(caught.value).rpartition(" ")[2])
    assert getattr(task_config(f"{name}?{field}={most}"), field) == most
    with pytest.raises(UserError, match=rf"{field} is {most + 1}; allowed is from \d to {most}$"):
        task_config(f"{name}?{field}={most + 1}")
