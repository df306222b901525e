"""Compare pretext tasks from one command; start it again to resume.

python benchmarks/run_all.py [--profile smoke|laptop|tasks|workstation|paper] [--data SPEC]… [--tasks A B …]
                             [--probes A B …] [--seeds N] [--out DIR]
python benchmarks/run_all.py status | compare A B | reproduce CELL | clean  [--out DIR]
python benchmarks/run_all.py merge A B … --out DIR | leaderboard DIR … --out SITE | did-it-help --data SPEC

`--help` explains all flags. Exit codes: 0, 1 if a cell failed, 2 for unusable input, 130 for Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a file: Python put this folder on the import path; the packages are one level up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.commands import COMMANDS
from benchmarks.options import PROFILE_NAMES, Options, check_profile, check_writable, plan_of
from pretext.system import catalogue, help_page
from pretext.system.command_line import parse
from pretext.system.declarations import read_class, read_module
from pretext.system.errors import UserError, did_you_mean, run_command

if TYPE_CHECKING:
    from benchmarks.executors.base import Executor
    from benchmarks.executors.schedule import Estimate
    from benchmarks.planning.cells import Cell
    from benchmarks.planning.plan import Plan

PROG = "python benchmarks/run_all.py"


def main(argv: list[str]) -> int:
    """Run the command; return its exit code.

    Raises:
        UserError: If the input cannot be used.
    """
    if argv and not argv[0].startswith("-"):
        if argv[0] not in COMMANDS:
            raise UserError(f"unknown command {argv[0]!r}; {did_you_mean(argv[0], COMMANDS)}")
        return COMMANDS[argv[0]](argv[1:])
    if help_page.is_asked(argv):
        print(_help())
        return 0
    options = parse(Options, argv, prog="run_all.py")
    check_profile(options.profile)

    from benchmarks.executors.choosing import chosen_executor

    chosen = chosen_executor(options.executor, options.executor_option)  # a wrong option fails before data is opened
    if not options.dry_run:
        check_writable(options.folder)
    if options.cache_gb is not None:
        from downstream.features import limit_cache

        limit_cache(options.cache_gb)
    sentences: tuple[str, ...] = ()
    if options.sweep:
        from benchmarks.sweeping import swept

        options, sentences = swept(options, argv, chosen)
    plan = plan_of(options)
    plan = dataclasses.replace(plan, notes=(*plan.notes, *sentences))
    return carry_out(plan, options, argv, chosen)


def carry_out(plan: Plan, options: Options, argv: list[str], chosen: tuple[type[Executor], Any]) -> int:
    """Print a plan, compute its missing cells, and write table and report; return the exit code.

    Args:
        plan: The comparison.
        options: Where and how to compute it.
        argv: The command line, for OUT/plan.json.
        chosen: The executor and its options, as `chosen_executor` returns them.
    """
    from benchmarks.executors import schedule
    from benchmarks.folders.superseded import move_superseded, restore
    from benchmarks.planning.plan import plan_text
    from benchmarks.records.environment import write_environment
    from benchmarks.words.wording import count_of
    from pretext.system.device import device_of
    from pretext.system.precision import say_if_slow

    executor, config = chosen
    out = options.folder
    if options.executor == "local":
        say_if_slow(options.precision, device_of("auto"))
    missing = plan.missing(out)
    pool = executor(out, options.workers, config) if missing else None
    workers = pool.workers if pool else 1
    counts = pool.counts_processes if pool else False
    expected = schedule.Estimate(plan.recipe.expected_s, workers, counts)
    if options.dry_run:
        if pool:
            pool.stop()
        print(_dry_run(plan, missing, expected, options))
        return 0
    print(plan_text(plan, missing, workers, expected.of_all(missing)), flush=True)
    moved = move_superseded(plan, out)  # before computing: an unreadable file stops the run now
    for name in moved:
        print(f"{name}: its settings differ; moved to {out / 'superseded'}", file=sys.stderr)
    for name in restore(plan, out):
        print(f"{name}: its settings are the plan's again; moved back", file=sys.stderr)
    plan.write(out, argv)
    failures: dict[str, str] = {}
    if pool:
        write_environment(out, workers=workers, threads=pool.threads, counts_processes=counts)
        failures = schedule.run_and_show(missing, out, pool, expected=expected)
    finish(out)
    for name, error in failures.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    if failures:
        print(f"{count_of(len(failures), 'cell')} failed; tracebacks are in {out / 'failures'}", file=sys.stderr)
    return 1 if failures else 0


def _dry_run(plan: Plan, missing: list[Cell], expected: Estimate, options: Options) -> str:
    """Measure, and return the plan and the cost of its missing cells; `expected` says with how many workers."""
    from benchmarks.forecast.telling import forecast_text, foretold
    from benchmarks.planning.plan import plan_text

    if not missing:
        return plan_text(plan, missing, expected.workers, 0.0)
    cost = foretold(plan, missing, options.folder)
    seconds = dataclasses.replace(expected, expected_s=cost.expected_s).of_all(missing)
    width = shutil.get_terminal_size().columns
    workers, processes = expected.workers, options.gpus_per_cell
    text = forecast_text(cost, workers=workers, executor=options.executor, width=width, processes=processes)
    return f"{plan_text(plan, missing, workers, seconds)}\n\n{text}"


def _help() -> str:
    """Return the help page, which lists every command, profile, probe and task."""
    options, recipes = read_class("benchmarks.options:Options"), read_module("benchmarks.planning.recipes")
    commands = {f"{name} --help": command.__doc__ or "" for name, command in COMMANDS.items()}
    profiles = {name: recipes.about_function(name) for name in PROFILE_NAMES}
    probes = sorted([*(catalogue.declared_probes("downstream.probes")), *catalogue.declared_probes("retrieval.probes")])
    names = {"other commands": commands, "profiles": profiles}
    for executor, kind in (("slurm", "SlurmJobs"), ("ray", "RayTasks")):
        config = read_class(f"benchmarks.executors.{executor}:{kind}").inner("Config")
        assert config is not None
        names[f"options of --executor {executor}"] = {each.name: each.help for each in config.settings()}
    names["probes"] = dict.fromkeys([*probes, "inpainting"], "")
    names["tasks"] = dict.fromkeys(catalogue.declared_tasks(), "")
    groups = help_page.groups_of(options, rest="flags")
    return help_page.HelpPage(PROG, options.about, groups, names).text()


def finish(out: Path) -> None:
    """Write CSV, Parquet and report unless they are up to date with the results and this code; print the table."""
    from benchmarks.records.results import read_measurements, read_plan, write_csv, write_parquet
    from benchmarks.report import digest_of_inputs, write_report
    from benchmarks.report.terminal import closing, text_table
    from benchmarks.summaries.costs import read_costs
    from benchmarks.summaries.verdict import summarise, write_summaries
    from benchmarks.words.columns import labels_of, sets_of, synthetic_sets
    from benchmarks.words.wording import wrapped
    from pretext.system.checkpoint import remove_leftovers_in

    csv, report, made_of = out / "results.csv", out / "report.html", out / ".report-inputs"
    now = digest_of_inputs(out)  # first: a cell that another machine writes from here on is for the next report
    measurements = read_measurements(out)
    summaries = summarise(measurements)
    costs = read_costs(out, measurements)
    columns = shutil.get_terminal_size().columns
    table = text_table(summaries, costs, width=columns)
    if not (csv.exists() and report.exists() and made_of.exists() and made_of.read_bytes() == now.encode()):
        csv, report = write_csv(out, measurements), write_report(out)
        write_parquet(out, measurements)
        write_summaries(out, summaries)
        made_of.write_text(now)
    for folder in (out, out / "figures"):  # of a process that was killed while this one wrote the report
        remove_leftovers_in(folder)
    plan = read_plan(out)
    labels, synthetic = labels_of(sets_of(plan)), bool(plan.get("synthetic"))
    drawn = [] if synthetic else [labels[spec] for spec in synthetic_sets(plan)]
    end = closing(summaries, costs, csv=csv, page=report, synthetic=synthetic, drawn=drawn)
    print(f"{table}\n\n{wrapped(end, columns)}")


if __name__ == "__main__":
    run_command(main)
