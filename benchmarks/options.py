"""The options of `run_all`, and the plan that they give."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from pretext.system.errors import UserError, did_you_mean
from pretext.system.ranges import check_image_size

if TYPE_CHECKING:
    from benchmarks.planning.plan import Plan
    from benchmarks.planning.recipes import Recipe

PROFILE_NAMES = ("smoke", "laptop", "tasks", "workstation", "paper")
MOST_SEEDS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Train encoders by pretext tasks, judge them by probes, and write one table and one report.

    The same command resumes an interrupted comparison.

    Examples:
        python benchmarks/run_all.py --profile smoke
        python benchmarks/run_all.py --data folder:photos --tasks context_encoder simclr --out results/mine
    """

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "what": (
            "profile",
            "tasks",
            "sweep",
            "encoder",
            "allow_partial",
            "probes",
            "data",
            "pretrain_data",
            "download",
            "bad_images",
            "architecture",
            "image_size",
        ),
        "how": ("seeds", "budget", "precision"),
        "where": (
            "out",
            "executor",
            "executor_option",
            "workers",
            "gpus_per_cell",
            "cache_gb",
            "watch",
            "dry_run",
        ),
    }

    profile: str = "laptop"
    """Named comparison: its rows, probes, data, seeds and budget. See `profiles` below."""
    data: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="KIND[:PATH][?key=value&…]")]] = ()
    """Data set that encoders are trained and judged on; the profile's own if omitted. Repeat the flag to judge the
    same encoders on more data sets: each has its own columns, as in linear on camvid."""
    pretrain_data: str | None = None
    """Data set to train on; the first --data if omitted."""
    tasks: tuple[str, ...] = ()
    """Rows: names of the profile's rows or of tasks, or files of your own, my_task.py; all rows of the profile if
    omitted. Settings of the task and of training after a ? make a row of its own, as in
    simclr?temperature=0.1&learning_rate=1e-3: it differs from the row simclr in these settings only."""
    sweep: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK?key=A,B&…")]] = ()
    """Add a row whose settings are chosen on val: every combination of the values between commas is trained with seed
    0, and the best in k-NN on val becomes a row. Repeat the flag for more rows."""
    probes: tuple[str, ...] = ()
    """Columns: probe names as in `probes` below, or files of your own, my_probe.py; the profile's if omitted. Settings
    after a ? replace the profile's, as in svm?folds=5 or knn?ks=5,20."""
    seeds: int | None = None
    """Number of seeds, each a full repetition; the profile's if omitted."""
    budget: Annotated[str | None, tyro.conf.arg(metavar="KIND=NUMBER")] = None
    """Training budget of every row, as in images=1000000; KIND is images, steps, epochs, seconds or flops. The
    profile's if omitted."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the layers in training: of all rows, and of the encoder in probes that train it. auto is float32
    but for rows on a GPU, which are bfloat16. Settings of a row or a probe come first (simclr?precision=float32)."""
    architecture: str | None = None
    """Encoder that every row trains, as in timm:resnet18 or my_encoder.py; the profile's if omitted."""
    image_size: int | None = None
    """Side in pixels of the pictures that every row sees; the profile's if omitted."""
    out: Path | None = None
    """Folder of the results; results/PROFILE if omitted."""
    encoder: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FILE|timm:NAME")]] = ()
    """Add a row: an encoder file under a name, weights published by timm or torchvision, or external weights, as in
    timm:resnet50?weights=FILE. Repeat the flag for more rows."""
    allow_partial: bool = False
    """Accept a weights file that covers only part of the encoder; the rest stays random."""
    download: bool = False
    """Download a torchvision data set that is not on disk."""
    bad_images: Literal["skip", "stop"] = "skip"
    """What to do about pictures that cannot be decoded: skip and report them, or stop."""
    executor: str = "local"
    """Where cells are computed: on this machine (local), as jobs of a cluster (slurm), or as tasks of one (ray)."""
    executor_option: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")]] = ()
    """Option of the executor, as in partition=gpu; repeat the flag for more. They are listed below."""
    workers: int | None = None
    """Cells at the same time; if omitted, one per GPU, or as many as cores and memory allow; 64 jobs of slurm, as
    many tasks as a Ray cluster has room for."""
    gpus_per_cell: int = 1
    """GPUs that train one encoder together, each with its share of every batch; where there is no GPU, processor
    cores. Probes take one. It is a setting of the encoders: with another number they are trained anew."""
    cache_gb: float | None = None
    """Maximum size in GB of the cache of features; 4 if omitted, 0 disables the cache."""
    watch: Literal["knn", "rankme"] | None = None
    """Measure each encoder while it trains, on fixed pictures of train and val, for a curve in the report: k-NN
    accuracy, or RankMe, which needs no labels. Neither encoders nor results change."""
    dry_run: bool = False
    """Print the plan and the cost of each row: time, memory, disk. A few training steps are measured for it, and no
    result is computed or written."""

    def __post_init__(self) -> None:
        if self.seeds is not None and not 1 <= self.seeds <= MOST_SEEDS:
            raise ValueError(f"--seeds is {self.seeds}; allowed is from 1 to {MOST_SEEDS}")
        check_image_size(self.image_size)
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; allowed is 1 or more")
        if self.gpus_per_cell < 1:
            raise ValueError(f"--gpus-per-cell is {self.gpus_per_cell}; allowed is 1 or more")

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return results_folder(self.out, self.profile)


def results_folder(out: Path | None, profile: str) -> Path:
    """Return the folder of the results: `out`, or results/PROFILE if None."""
    return out if out is not None else Path("results") / profile


def check_profile(name: str) -> None:
    """Raise a UserError if no profile has this name."""
    if name not in PROFILE_NAMES:
        raise UserError(f"unknown profile {name!r}; {did_you_mean(name, PROFILE_NAMES)}")


def check_writable(out: Path) -> None:
    """Raise a UserError if the folder does not take a file of one megabyte; what is made for it is removed again."""
    from pretext.system.checkpoint import atomic_write

    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with atomic_write(out / ".writable") as beside:
            beside.write_bytes(bytes(1_000_000))
        (out / ".writable").unlink(missing_ok=True)
        for folder in made:  # the innermost first
            with contextlib.suppress(OSError):  # another command has begun to use it
                folder.rmdir()
    except OSError as error:
        raise UserError(f"results folder {out}: {error.strerror}; give another --out, or make room") from None


def plan_of(options: Options, recipe: Recipe | None = None) -> Plan:
    """Return the plan for the options; opens the data sets.

    Args:
        options: The flags.
        recipe: Takes the place of the profile.

    Raises:
        UserError: If a name is unknown, a data set cannot be used, or the folder holds another comparison.
    """
    from benchmarks.planning.adjusting import chosen_probes, watched, with_budget, with_precision
    from benchmarks.planning.cells import check_slugs
    from benchmarks.planning.making import Judging, check_rows, make_plan, open_all
    from benchmarks.planning.probes import with_label_free
    from benchmarks.planning.recipes import PROFILES
    from benchmarks.planning.row_flags import encoder_rows, task_rows
    from benchmarks.planning.rows import PLAIN, by_name
    from benchmarks.words.columns import labels_of

    recipe = with_budget(recipe or PROFILES[options.profile](), options.budget)
    recipe = with_precision(recipe, options.precision)
    if options.architecture is not None:
        recipe = dataclasses.replace(recipe, encoder=options.architecture)
    if options.image_size is not None:
        recipe = dataclasses.replace(recipe, image_size=options.image_size)
    recipe = dataclasses.replace(recipe, processes=options.gpus_per_cell)
    rows = (*task_rows(options.tasks, recipe), *PLAIN)
    rows += encoder_rows(
        options.encoder, taken=by_name(rows), size=recipe.image_size, allow_partial=options.allow_partial
    )
    probes = chosen_probes(options.probes, recipe.probes, precision=options.precision)
    check_slugs("rows", by_name(rows))
    check_slugs("probes", probes)
    specs = options.data or (recipe.data,)
    labels_of(specs)  # a set that is given twice fails before data is opened
    pretrain_spec = options.pretrain_data or specs[0]
    check_same(options.folder, recipe.name, specs, pretrain_spec)
    check_rows(rows, recipe)
    opened = open_all(
        dict.fromkeys((*specs, pretrain_spec)),
        recipe.image_size,
        bad_images=options.bad_images,
        download=options.download,
    )
    judging = [
        Judging(*opened[spec], probes if options.probes else with_label_free(probes, opened[spec][1])) for spec in specs
    ]
    return make_plan(
        watched(recipe, options.watch, opened[pretrain_spec][1]),
        judging,
        rows=rows,
        seeds=options.seeds or recipe.seeds,
        pretrain_data=opened[pretrain_spec],
    )


def check_same(out: Path, profile: str, specs: Sequence[str], pretrain_spec: str) -> None:
    """Raise a UserError if the folder holds a comparison of another profile or of other data sets.

    A comparison may get more data sets to judge on: its results stay valid.
    """
    from benchmarks.records.results import read_plan
    from benchmarks.words.columns import sets_of
    from benchmarks.words.wording import and_list

    plan = read_plan(out)
    if not plan:
        return
    stored = sets_of(plan) or ["unknown data"]
    before = plan.get("profile", "unknown"), plan.get("pretrain_data", stored[0])
    if before != (profile, pretrain_spec) or not {*stored} <= {*specs}:
        was, now = (
            f"{name} on {and_list(sets)}" + (f", trained on {trained}" if [trained] != [*sets] else "")
            for (name, trained), sets in ((before, stored), ((profile, pretrain_spec), specs))
        )
        raise UserError(f"{out} holds profile {was}, not {now}; give another --out")
