"""Write the page that `--help` prints: what a command is for, two examples, and its flags in groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pretext.system.declarations import REQUIRED, SWITCH, Declared, Setting

INDENT = 26
"""Column at which explanations begin."""
NARROWEST, WIDEST = 50, 100
"""A wider terminal is not filled: long lines are hard to read. A narrower one breaks the lines itself."""


@dataclass(frozen=True)
class Group:
    """Flags under one heading."""

    title: str
    settings: Sequence[Setting]


@dataclass(frozen=True)
class HelpPage:
    """A command's help."""

    prog: str
    """The command as it is typed."""
    about: str
    """Docstring: a summary, and an `Examples:` section with a command a line."""
    groups: Sequence[Group]
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Below the flags, by heading: names that a flag takes, each with what it stands for, or with nothing."""

    def text(self, width: int | None = None) -> str:
        """Return the page; `width` is the terminal's where None."""
        width = width or min(WIDEST, max(NARROWEST, shutil.get_terminal_size((80, 24)).columns))
        summary, examples = _split(self.about)
        settings = [setting for group in self.groups for setting in group.settings]
        needed = [_spelled(setting) for setting in settings if setting.positional or setting.default is REQUIRED]
        blocks = [
            textwrap.fill(f"usage: {self.prog} {' '.join([*needed, '[flags]'])}", width, subsequent_indent="    "),
            *(textwrap.fill(paragraph, width) for paragraph in summary),
        ]
        if examples:
            blocks.append("\n".join(["examples:", *(_folded(line, width) for line in examples)]))
        for group in self.groups:
            if group.settings:
                blocks.append("\n".join([f"{group.title}:", *(_entry(each, width) for each in group.settings)]))
        blocks += [f"{title}:\n{list_of_names(names.items(), width)}" for title, names in self.names.items()]
        return "\n\n".join(blocks)


def groups_of(declared: Declared, *, rest: str, defaults: Mapping[str, Any] | None = None) -> list[Group]:
    """Return a dataclass's settings by its own `groups`.

    Args:
        declared: Its class attribute `groups`, a literal, holds names of fields by heading.
        rest: Heading of the fields that no group names.
        defaults: Other values than the class's own, by field.
    """
    changed = defaults or {}
    settings = {each.name: replace(each, default=changed.get(each.name, each.default)) for each in declared.settings()}
    found = []
    for title, names in (declared.value("groups") or {}).items():
        found.append(Group(title, [settings.pop(name) for name in names if name in settings]))
    left = sorted(settings.values(), key=lambda setting: not setting.positional)
    return [*found, Group(rest, left)] if left else found


def list_of_names(names: Iterable[tuple[str, str]], width: int = 80) -> str:
    """Return names, one a line with what it stands for; separated by commas where nothing is said of any."""
    entries = [*names]
    if not any(about for _, about in entries):
        return _filled(", ".join(name for name, _ in entries), width, "  ", "  ")
    return "\n".join(_filled(about, width, f"  {name:{INDENT - 2}}", " " * INDENT) for name, about in entries)


def is_asked(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return bool({"-h", "--help"} & set(argv))


def _split(about: str) -> tuple[list[str], list[str]]:
    """Return the paragraphs of a docstring, and the lines of its examples."""
    body, _, examples = about.partition("Examples:")
    paragraphs = [" ".join(paragraph.split()) for paragraph in body.split("\n\n")]
    lines = [line.strip() for line in examples.splitlines()]
    return [paragraph for paragraph in paragraphs if paragraph], [line for line in lines if line]


def _folded(command: str, width: int) -> str:
    """Return a command that can be pasted, on several lines where it is longer than the page is wide."""
    lines = textwrap.wrap(command, width - 4, break_on_hyphens=False, break_long_words=False)
    return " \\\n".join(("  " if at == 0 else "      ") + line for at, line in enumerate(lines))


def _spelled(setting: Setting) -> str:
    """Return how a setting is typed."""
    if setting.positional:
        return setting.name.upper() if setting.values == "PATH" else setting.values
    flag = f"--{setting.name.replace('_', '-')}"
    if setting.values == SWITCH:
        return flag if setting.default is not True else f"--[no-]{flag[2:]}"
    flags = [*setting.aliases, flag]
    value = setting.values.removesuffix("S") if setting.many else setting.values
    return f"{', '.join(flags)} {value}{f' [{value} …]' if setting.many else ''}"


def _entry(setting: Setting, width: int) -> str:
    """Return the lines of one flag."""
    spelled, about = f"  {_spelled(setting)}", setting.help
    if setting.default is REQUIRED and not setting.positional:
        about += " (required)"
    elif (shown := _shown(setting)) is not None:
        about += f" (default: {shown})"
    body = textwrap.wrap(about, width - INDENT, break_on_hyphens=False)
    if len(spelled) > INDENT - 2:
        choices = textwrap.wrap(spelled, width, subsequent_indent=" " * 6, break_on_hyphens=False)
        if len(choices) == 1 and len(spelled) > width:  # a long list of choices has no spaces to break at
            choices = textwrap.wrap(spelled.replace(",", ", "), width, subsequent_indent=" " * 6)
        return "\n".join([*choices, *(" " * INDENT + line for line in body)])
    first, *others = body or [""]
    return "\n".join([f"{spelled:{INDENT}}{first}".rstrip(), *(" " * INDENT + line for line in others)])


def _shown(setting: Setting) -> str | None:
    """Return a default as one would type it; None where there is nothing to say."""
    value = setting.default
    if setting.values == SWITCH:
        return "on" if value is True else None
    if value is REQUIRED or value is None or value in ((), ""):
        return None
    if isinstance(value, tuple):
        return " ".join(str(each) for each in value)
    return str(value)


def _filled(text: str, width: int, first: str, others: str) -> str:
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(lines) or first.rstrip()
