"""Write the settings of every probe into docs/probes.md, read from the source of the probes.

python docs/probe_settings.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pretext.system import catalogue
from pretext.system.declarations import Declared, read_class

PAGE = Path(__file__).parent / "probes.md"
START = "<!-- Written by docs/probe_settings.py. -->\n"


def sections() -> Iterator[str]:
    """Yield a section for each probe: its name, the first sentences of its docstring, and its settings."""
    probes = {
        **catalogue.declared_probes("downstream.probes"),
        **catalogue.declared_probes("retrieval.probes"),
        "inpainting": read_class("benchmarks.planning.cells:Inpainting"),
    }
    for name, probe in sorted(probes.items()):
        about = " ".join(probe.about.split("\n\n")[0].split())
        yield f"### {name}\n\n{about}\n\n| setting | default | meaning |\n|:--|:--|:--|\n{rows(probe)}"


def rows(probe: Declared) -> str:
    """Return the rows of a table of settings."""
    return "".join(
        f"| `{setting.name}` | `{shown(setting.default)}` | {setting.help.replace('|', chr(92) + '|')} |\n"
        for setting in probe.settings()
    )


def shown(default: object) -> str:
    """Return a default as one types it behind a flag."""
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or "none"
    return {"": "empty", "None": "none"}.get(str(default), str(default))


def with_settings(page: str) -> str:
    """Return the page with its sections written anew."""
    return page.split(START, maxsplit=1)[0] + START + "\n" + "\n".join(sections())


if __name__ == "__main__":
    PAGE.write_text(with_settings(PAGE.read_text()))
