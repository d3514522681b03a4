"""Formulas as MathML, which browsers show without a script or a font of their own."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

# Commands that docutils does not know, with those that look the same.
_SYNONYMS = {r"\dots": r"\ldots", r"\big": ""}
logger = logging.getLogger(__name__)


def write_inline(writer, node):
    """Writes a formula within a line."""
    _write(writer, node, block=False)


def write_block(writer, node):
    """Writes a formula in a line of its own."""
    _write(writer, node, block=True)


def _write(writer, node, block):
    formula = node.astext()
    for command, synonym in _SYNONYMS.items():
        formula = formula.replace(command, synonym)
    try:
        markup = tex2mathml(formula, as_block=block)
    except MathError as error:
        logger.warning("the formula %r cannot be written: %s", formula, error, location=node)
        markup = writer.encode(formula)
    writer.body.append(f'<div class="formula">{markup}</div>' if block else markup)
    raise nodes.SkipNode
