"""The contract of all pretext tasks; a new file in the folder is tested automatically."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
import typing

import pytest
import torch

import pretext.tasks
from pretext.datasets.pictures import equally_large
from pretext.encoders import build_encoder
from pretext.system.errors import UserError
from pretext.system.specs import format_spec
from pretext.tasks import (
    Batch,
    LabelKind,
    build_task,
    task_class,
    task_config,
    task_names,
    task_training,
)
from pretext.tasks.base import Fitted
from pretext.training.config import TrainConfig

NAMES = task_names()
MODULES = sorted({name.partition(":")[0] for name in NAMES})
CLASSES = 3
WIDEST = 64
AT_MOST = {"patches": 500, "queue": 8, "tile": 96}
"""Limits other than WIDEST; a queue of a batch's length is full after one step."""
IMPOSSIBLE = {int: (-1_000_000,), float: (-1e6, float("nan"))}
OUT_OF_RANGE = [
    (name, field, value)
    for name in MODULES
    for field, hint in typing.get_type_hints(task_class(name).Config).items()
    for kind in (hint, *typing.get_args(hint))
    for value in (IMPOSSIBLE.get(kind, ()) if isinstance(kind, type) else ())
]


def needs_labels(name):
    return task_class(name).needs_labels


FITTED = [name for name in NAMES if issubclass(task_class(name), Fitted)]
STEPPED = [name for name in NAMES if name not in FITTED]


def some_slow(names):
    """Mark the variants as slow: a task's own name stands for it in the quick tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if ":" in name else name for name in names]


def published(name):
    """Return the encoder and the image size of a variant's training defaults, or small ones."""
    training = task_training(name)
    return training.get("encoder", "alexnet?stem_stride=1"), training.get("image_size", 32)


def small_encoder(name, seed=0):
    encoder, size = published(name)
    if not encoder.startswith("timm:"):  # their width is part of the name
        encoder += f"{'&' if '?' in encoder else '?'}width=0.125"
    return build_encoder(encoder, input_size=size, seed=seed)


def narrow(name):
    """Return the task's spec with a quarter of each width factor, and no number above WIDEST."""
    values = dataclasses.asdict(task_config(name))
    options = [f"{field}=0.25" for field in values if field.endswith("width")]
    most = {field: AT_MOST.get(field, WIDEST) for field, value in values.items() if type(value) is int}
    options += [f"{field}={limit}" for field, limit in most.items() if values[field] > limit]
    return f"{name}?{'&'.join(options)}" if options else name


def built(name, seed=0):
    labels = LabelKind(CLASSES, multi_label=False) if needs_labels(name) else None
    return build_task(narrow(name), small_encoder(name, seed), labels=labels, seed=seed)


def batch(name, seed=0, count=8):
    """Return a batch of smooth images; `seed` seeds the step's generator, the images are always the same."""
    fixed = torch.Generator().manual_seed(11)
    coarse = torch.rand(count, 3, 4, 4, generator=fixed)
    smooth = torch.nn.functional.interpolate(coarse, size=published(name)[1], mode="bilinear")
    images = (smooth * 255).to(torch.uint8)
    labels = torch.arange(count) % CLASSES if needs_labels(name) else None
    return Batch(equally_large(images), labels, torch.Generator().manual_seed(seed))


def losses(name, seed):
    return {player: loss.item() for player, loss in built(name).losses(batch(name, seed))}


def test_there_are_tasks():
    assert {"rotation", "simclr", "supervised"} <= set(NAMES)
    assert [name for name in MODULES if needs_labels(name)] == ["supervised"]


@pytest.mark.parametrize("name", some_slow(STEPPED))
def test_losses_are_finite_scalars_of_known_players(name):
    task = built(name)
    yielded = []
    for player, loss in task.losses(batch(name)):
        assert loss.shape == () and loss.requires_grad and torch.isfinite(loss)
        yielded.append(player)
    assert sorted(yielded) == sorted(task.players())
    variants = [other for other in NAMES if other.partition(":")[0] == name.partition(":")[0]]
    assert set(task.rate_factors()) <= {player for other in variants for player in built(other).players()}


@pytest.mark.parametrize("name", some_slow(STEPPED))
def test_every_parameter_has_one_player(name):
    task = built(name)
    owned = [id(parameter) for parameters in task.players().values() for parameter in parameters]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(parameter) for parameter in task.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", some_slow(STEPPED))
def test_a_loss_moves_all_of_its_player_and_nothing_of_the_others(name):
    task = built(name)
    task.after_step(0.5)  # some tasks freeze a layer at first
    names = {id(parameter): text for text, parameter in task.named_parameters()}
    encoder = {id(parameter) for parameter in task.encoder.parameters()}
    moved = set()
    for player, loss in task.losses(batch(name)):
        task.zero_grad()
        loss.backward()
        for other, parameters in task.players().items():
            reached = {id(p) for p in parameters if p.grad is not None and p.grad.abs().sum() > 0}
            expected = {id(p) for p in parameters} if other == player else set()
            assert sorted(names[i] for i in reached) == sorted(names[i] for i in expected), (player, other)
            moved |= reached
    assert encoder <= moved


@pytest.mark.slow
@pytest.mark.parametrize("name", some_slow(STEPPED))
def test_all_draws_come_from_the_generator(name):
    torch.manual_seed(1)
    first = losses(name, 0)
    torch.manual_seed(2)
    assert losses(name, 0) == first
    used = batch(name, 0)
    before = used.generator.get_state()
    list(built(name).losses(used))
    draws = not torch.equal(used.generator.get_state(), before)
    assert (losses(name, 1) != first) == draws


@pytest.mark.parametrize("name", some_slow(NAMES))
def test_the_batch_is_not_modified(name):
    given = batch(name)
    before = given.images.clone()
    task = built(name)
    list(task.losses(given))
    task.pictures(given)
    assert torch.equal(given.images, before)


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_task_is_ready_once_it_is_prepared(name):
    def prepared(draws):
        torch.manual_seed(draws)
        task, given = built(name), batch(name)
        before = given.images.clone()
        task.prepare(given)
        assert torch.equal(given.images, before)
        return task

    task, untouched = prepared(1), built(name)
    learns = not name.startswith("random")
    assert (task.prepares_on > 0 or not learns) and task.players() == {} and list(task.losses(batch(name))) == []
    weights, again = task.encoder.state_dict(), prepared(2).encoder.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert all(
        torch.equal(value, again[key]) for key, value in weights.items()
    )  # the batch's generator makes all draws
    start = untouched.encoder.state_dict()
    assert all(torch.equal(weights[key], start[key]) != learns for key in weights if weights[key].ndim > 1)
    assert task.training and all(parameter.requires_grad for parameter in task.parameters())


@pytest.mark.parametrize("name", some_slow(STEPPED))
def test_prepare_changes_the_state_dict_only(name):
    task, given = built(name), batch(name)
    before = given.images.clone()
    parameters = {key: value.clone() for key, value in task.named_parameters()}
    task.prepare(given)
    assert torch.equal(given.images, before)
    assert all(torch.equal(value, parameters[key]) for key, value in task.named_parameters())  # only steps change them
    other = built(name)
    other.load_state_dict(task.state_dict(), strict=True)
    first, second = ([loss.item() for _, loss in each.losses(batch(name))] for each in (task, other))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("name", some_slow([name for name in STEPPED if not name.endswith("paper")]))
def test_a_fixed_batch_is_learned(name):
    """Without the `paper` variants, whose settings are for hundreds of epochs, not for forty steps."""
    task = built(name)
    factors, owner = task.rate_factors(), _owner_of_the_encoder(task)
    optimisers = {
        player: torch.optim.Adam(parameters, 2e-3 * factors.get(player, 1))
        for player, parameters in task.players().items()
    }
    history = []
    for step in range(40):
        for player, loss in task.losses(batch(name)):
            optimisers[player].zero_grad()
            loss.backward()
            optimisers[player].step()
            if player == owner:
                history.append(loss.item())
        task.after_step(step / 40)
    # The highest of the first losses: a queue of random vectors makes the first step easy.
    assert min(history[-5:]) < 0.75 * max(history[:5]), history


def _owner_of_the_encoder(task):
    first = next(task.encoder.parameters())
    return next(name for name, parameters in task.players().items() if any(p is first for p in parameters))


@pytest.mark.parametrize("name", some_slow(NAMES))
def test_metrics_are_numbers_and_pictures_are_pictures(name):
    task, given = built(name), batch(name)
    list(task.losses(given))
    for value in task.metrics().values():
        assert isinstance(value, float) and value == value
    for column in task.pictures(given).values():
        assert column.shape == given.images.shape and column.dtype == torch.float32
        assert column.min() >= 0 and column.max() <= 1


@pytest.mark.parametrize("name", some_slow(NAMES))
def test_weights_load_into_another_of_its_kind(name):
    first, second = built(name), built(name, seed=1)
    second.load_state_dict(first.state_dict(), strict=True)
    mine, theirs = (task.eval().state_dict() for task in (first, second))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", some_slow(NAMES))
def test_the_seed_decides_the_heads(name):
    def heads(seed):
        labels = LabelKind(CLASSES, multi_label=False)
        task = build_task(narrow(name), small_encoder(name), labels=labels, seed=seed)
        parts = [p.flatten() for text, p in task.named_parameters() if not text.startswith("encoder.")]
        return torch.cat([torch.zeros(0), *parts])

    torch.manual_seed(1)
    first = heads(0)
    torch.manual_seed(2)
    assert torch.equal(heads(0), first) and (not torch.equal(heads(1), first) or not len(first))


@pytest.mark.parametrize("name", some_slow(NAMES))
def test_only_the_task_that_needs_labels_requires_them(name):
    if needs_labels(name):
        with pytest.raises(UserError, match="label"):
            build_task(name, small_encoder(name), labels=None, seed=0)
    else:
        list(build_task(narrow(name), small_encoder(name), labels=None, seed=0).losses(batch(name)))


@pytest.mark.parametrize("name", some_slow(NAMES))
def test_a_configuration_survives_being_written_as_a_spec(name):
    config = task_config(name)
    assert task_config(format_spec(name.partition(":")[0], "", config)) == config


@pytest.mark.parametrize("name", MODULES)
def test_a_module_cites_its_paper_and_documents_its_settings(name):
    assert re.search(r"arXiv \d{4}\.\d{4,5}|\b(19|20)\d\d\b", inspect.getmodule(task_class(name)).__doc__), "no paper"
    inherited = {field for base in task_class(name).Config.__mro__[1:-1] for field in typing.get_type_hints(base)}
    documented = {field for field, _ in field_docstrings(name)}
    missing = {field.name for field in dataclasses.fields(task_class(name).Config)} - documented - inherited
    assert not missing, f"{name}: {sorted(missing)} have no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_a_setting_is_explained_in_words(name):
    for field, text in field_docstrings(name):
        assert len(text.split()) >= 3 and not text.startswith("Of "), f"{name}: {field}: {text!r}"


def field_docstrings(name):
    """Return the fields that a task's `Config` documents itself, with their docstrings."""
    body = class_body(name)
    config = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == "Config")
    return [
        (node.target.id, following.value.value)
        for node, following in itertools.pairwise(config.body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    ]


def class_body(name):
    """Return the statements of a task's class, as they are written."""
    task = task_class(name)
    tree = ast.parse(inspect.getsource(inspect.getmodule(task)))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == task.__name__).body


@pytest.mark.parametrize("name", MODULES)
def test_variants_can_be_read_from_the_source_alone(name):
    for node in class_body(name):
        if isinstance(node, ast.AnnAssign) and node.target.id in (
            "titles",
            "variants",
            "variant_help",
            "training_defaults",
        ):
            read = literal(node.value)
            found = getattr(task_class(name), node.target.id)
            assert read.keys() == found.keys()
            for key, value in read.items():
                assert (task_class(name).Config(**value) if node.target.id == "variants" else value) == found[key]


def literal(node):
    """Return the value of a literal, in which `Config(key=value)` is a dictionary."""
    if isinstance(node, ast.Dict):
        return {literal(key): literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Call):
        assert node.func.id == "Config" and not node.args
        return {keyword.arg: literal(keyword.value) for keyword in node.keywords}
    return ast.literal_eval(node)


@pytest.mark.parametrize("name", MODULES)
def test_variants_are_explained_and_known_to_the_loop(name):
    task = task_class(name)
    assert task.variant_help.keys() == task.variants.keys()
    assert task.titles.keys() <= {"", *task.variants}
    assert all(0 < len(text) <= 55 and not text.endswith(".") for text in task.variant_help.values())
    assert task.training_defaults.keys() <= {"", *task.variants}
    own = {"encoder", "image_size"}
    for defaults in task.training_defaults.values():
        TrainConfig(**{key: value for key, value in defaults.items() if key not in own})


@pytest.mark.parametrize("name", MODULES)
def test_the_first_line_of_a_module_fits_the_list(name):
    line = inspect.getmodule(task_class(name)).__doc__.splitlines()[0]
    assert len(line) <= 78 and re.fullmatch(r"[\w -]+: .+ \([A-Z].* (19|20)\d\d\)\.", line), line


@pytest.mark.parametrize("name", MODULES)
def test_configurations_cannot_be_changed(name):
    task = task_class(name)
    assert all(type(variant) is task.Config for variant in task.variants.values())
    config = task.Config()
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, None)


@pytest.mark.parametrize(("name", "field", "value"), OUT_OF_RANGE)
def test_numbers_out_of_range_are_named(name, field, value):
    with pytest.raises(ValueError, match=rf"\b{field}\b.*{value}") as caught:
        task_class(name).Config(**{field: value})
    assert "\n" not in str(caught.value)


def test_no_two_tasks_share_a_run_of_six_lines():
    runs = {}
    for info in pkgutil.iter_modules(pretext.tasks.__path__):
        lines = _lines(importlib.import_module(f"pretext.tasks.{info.name}"))
        for start in range(len(lines) - 5):
            run = tuple(lines[start : start + 6])
            assert runs.setdefault(run, info.name) == info.name, (runs[run], info.name, "\n".join(run))


def _lines(module):
    """Return a module's lines without imports and blank ones."""
    source = inspect.getsource(module)
    skipped = {
        line
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    numbered = enumerate(source.splitlines(), start=1)
    return [line.strip() for number, line in numbered if line.strip() and number not in skipped]
