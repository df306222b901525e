"""A hook of mkdocs: links from a page to a file outside docs/ become links to the repository.

In the repository such links are relative paths, which GitHub follows; the site holds nothing outside docs/.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page with its links to files outside docs/ made absolute."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def absolute(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[1]))
        if target.startswith("docs/"):
            return found[0]
        return f"]({config.extra['repository']}/blob/main/{target}{found[2] or ''})"

    return re.sub(r"\]\((\.\.?/[^)#\s]+)(#[^)\s]*)?\)", absolute, markdown)
