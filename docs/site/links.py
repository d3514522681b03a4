"""Links of the Markdown files as the site needs them.

A link to another page stays. A link to a file that is no page (measurements, notebooks, configurations) or that lies
outside this folder becomes a download, for which the site takes a copy of the file along. A folder has nothing to
download: its path in the repository takes the place of the link.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def rewrite(_app, page, source):
    """Rewrites the links of a page's Markdown in place."""
    folder = (DOCS / page).parent
    source[0] = _LINK.sub(lambda link: _rewritten(link, folder), source[0])


def _rewritten(link, folder):
    if ":" in link["target"]:
        return link[0]
    target = (folder / link["target"]).resolve()
    if target.is_dir():
        return f"{link['text']} (`{target.relative_to(ROOT)}`)"
    if target.is_file() and not (target.suffix == ".md" and target.is_relative_to(DOCS)):
        return f"[{link['text']}](path:{link['target']})"
    return link[0]
