"""For `mkdocs build`: links from docs/ to other files of the repository become their paths, for the site lacks them."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write `[text](../path)` as text and path; tests/test_docs.py checks that the path is there."""

    def shown(link: re.Match[str]) -> str:
        text, path = link.groups()
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    return OUTSIDE.sub(shown, markdown)
