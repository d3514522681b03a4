"""Settings of the documentation site: `make docs` builds it with Sphinx from the Markdown files of this folder.

The files are written for readers of the repository, where every relative link works. What the site needs besides stands
here and in `site/`: the navigation, the reference, and what becomes of links that leave this folder.
"""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "site"))

import address
import links
import mathematics
import reference

project = "vithub"
release = metadata.version("vithub")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
source_suffix = {".md": "markdown"}

# Captions of the sidebar with their pages, and pages with those below them.
NAVIGATION = {
    "index": {
        "Begin": ["getting_started"],
        "How to": [f"howto/{name}" for name in (
            "few_photos", "boxes", "browser", "eight_gpus", "hired_gpus", "why", "unlabelled",
        )],
        "Guides": [
            "checking_data", "training", "pretraining", "detection", "checkpoints", "publishing", "published_folder",
            "exporting", "explain", "looking_inside", "demo", "comparing", "scaling",
        ],
        "Concepts": ["tour/README", "notebooks/README"],
        "Results": ["results", "speed", "faithfulness", "reliability", "robustness", "interruptions", "reports/README"],
        "Reference": ["reference/python", "reference/commands"],
    },
    "tour/README": {"": sorted(f"tour/{file.stem}" for file in Path(__file__).parent.glob("tour/[0-9]*.md"))},
    "notebooks/README": {"": [f"notebooks/{name}" for name in ("own_photos", "teacher", "boxes", "why_and_compare")]},
    "reports/README": {"": ["reports/flowers5/report", "reports/cifar10/report"]},
}  # fmt: skip
# What is listed nowhere is a guide.
_listed = {"index"} | {page for groups in NAVIGATION.values() for pages in groups.values() for page in pages}
NAVIGATION["index"]["Guides"] += sorted({file.stem for file in Path(__file__).parent.glob("*.md")} - _listed)

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Signatures with a parameter a line; types as short as they stand in the source.
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
add_module_names = False

html_theme = "furo"
html_title = f"vithub {release}"
if address.is_known(address.repository()):  # buttons that show a page's source
    html_theme_options = {
        "source_repository": f"https://github.com/{address.repository()}",
        "source_branch": "main",
        "source_directory": "docs/",
    }
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False


def with_navigation(_app, page, source):
    """Appends the navigation below a page, which Markdown files do not state."""
    for caption, pages in NAVIGATION.get(page, {}).items():
        options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
        listed = [f"/{name}" for name in pages]
        source[0] += "\n".join(["", "```{toctree}", *options, "", *listed, "```", ""])


def setup(app):
    """Connects what is in `site/` with Sphinx."""
    app.connect("source-read", links.rewrite)
    app.connect("source-read", reference.extend)
    app.connect("source-read", with_navigation)
    app.connect("autodoc-process-docstring", reference.to_restructured_text, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (mathematics.write_inline, None), (mathematics.write_block, None))
