"""The command `did-it-help`: its flags, and the comparison that they stand for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.options import Options, check_writable, plan_of
from pretext.system.command_line import parse
from pretext.system.errors import UserError

OUT = Path("results/did-it-help")
ARCHITECTURE, IMAGE_SIZE = "alexnet?width=0.25&stem_stride=2", 64
"""Encoder and image side if no weights are given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DidItHelp:
    """Find out whether pretraining on your own pictures helps, with however few labels there are.

    The same command resumes an interrupted comparison.

    Examples:
        python benchmarks/run_all.py did-it-help --data folder:photographs --labels folder:labelled
        python benchmarks/run_all.py did-it-help --data folder:photos --encoder 'timm:resnet18?weights=FILE'
    """

    data: str
    """Pictures to train on, KIND[:PATH][?key=value&…]; only the row `supervised`, a reference, trains
    on labels in them."""
    labels: str | None = None
    """Labelled pictures that the encoders are judged on; if omitted, those of --data, as far as it has labels. Keep its
    test pictures out of --data: an encoder that has seen them gains too much."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="FILE|timm:NAME?weights=FILE")] = None
    """Pretrained weights to compare with, untouched and trained further: an encoder file, or a spec with weights. All
    rows then have their architecture."""
    architecture: str | None = None
    """Encoder of all rows without --encoder; alexnet?width=0.25&stem_stride=2 if omitted."""
    image_size: int | None = None
    """Side in pixels of the pictures that every row sees; 64 if omitted, or that of the encoder file."""
    budget: Annotated[str | None, tyro.conf.arg(metavar="KIND=NUMBER")] = None
    """Training budget of every row, as in images=1000000; images=50000 if omitted."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the layers in training: of all rows, and of the encoder in fine-tuning; auto is float32 but for
    rows on a GPU, which are bfloat16."""
    seeds: int | None = None
    """Number of seeds, each a full repetition; 3 if omitted."""
    out: Path = OUT
    """Folder of the results."""
    download: bool = False
    """Download a torchvision data set that is not on disk."""
    bad_images: Literal["skip", "stop"] = "skip"
    """What to do about pictures that cannot be decoded: skip and report them, or stop."""
    workers: int | None = None
    """Worker processes; if omitted, as many as cores and memory allow, or one on a GPU."""
    dry_run: bool = False
    """Print the plan and its cost, and compute nothing."""

    def __post_init__(self) -> None:
        if self.encoder is not None and self.architecture is not None:
            raise ValueError("--encoder brings its architecture; leave --architecture out")
        self.as_options()  # checks the ranges

    def as_options(self) -> Options:
        """Return the flags of `run_all` that these stand for, without its rows."""
        own = ("budget", "precision", "seeds", "image_size", "out", "download", "bad_images", "workers", "dry_run")
        return Options(
            data=(self.labels or self.data,),
            pretrain_data=self.data,
            encoder=() if self.encoder is None else (f"given={self.encoder}",),
            **{name: getattr(self, name) for name in own},
        )


def did_it_help(argv: list[str]) -> int:
    """Compare encoders trained on your own pictures with random weights, and answer in sentences."""
    options = parse(DidItHelp, argv, prog="run_all.py did-it-help")
    from benchmarks.did_it_help import recipe
    from benchmarks.did_it_help.answer import write_answer
    from benchmarks.did_it_help.fewer import with_fewer_pictures
    from benchmarks.executors.choosing import chosen_executor
    from benchmarks.run_all import carry_out
    from benchmarks.summaries.label_curves import label_counts
    from pretext.datasets import open_dataset
    from pretext.encoders import load_encoder
    from pretext.encoders.weights import is_spec

    if not options.dry_run:
        check_writable(options.out)
    judged = open_dataset(options.labels or options.data, download=options.download)
    has_labels = bool({"label", "labels"} & judged.annotations)
    if options.labels is not None and not has_labels:
        raise UserError(f"--labels {options.labels} has no classes; sort the images into one folder per class")
    architecture, size = options.architecture or ARCHITECTURE, options.image_size or IMAGE_SIZE
    if options.encoder is not None:
        spec = is_spec(options.encoder)
        given = load_encoder(options.encoder, input_size=size if spec else None)
        architecture, size = given.spec, options.image_size or given.input_size
    labelled = len(judged.split("train")) if has_labels else 0
    made = recipe.did_it_help(labelled=labelled, encoder=architecture, image_size=size, init=options.encoder)
    flags = options.as_options()
    chosen = chosen_executor(flags.executor, flags.executor_option)
    plan = plan_of(flags, made)
    if has_labels:  # without them no score could say what more pictures bring
        plan = with_fewer_pictures(plan, recipe.MAIN if options.encoder is None else recipe.CONTINUED)
    code = carry_out(plan, flags, ["did-it-help", *argv], chosen)
    if not options.dry_run and not code:
        print(write_answer(options.out, label_counts(judged, recipe.PERCENTS, size=size) if has_labels else {}))
    return code
