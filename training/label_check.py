"""Search for wrong labels: out-of-fold probabilities of a linear probe on embeddings, ranked by confident learning.

The method is that of Northcutt, Jiang and Chuang, Confident Learning (JAIR 2021, arXiv 1911.00068), by its authors'
library cleanlab.
"""

import warnings
from functools import partial
from importlib.util import find_spec

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data.checking.content import PhotoInspection
from ..data.checking.duplicates import repeated
from ..data.checking.report import DoubtfulLabel

FOLDS = 5
_STRENGTH = 0.01  # inverse of the probe's L2 penalty, on embeddings of unit variance


class MissingLibraryError(ValueError):
    """A library that a check needs is not installed; the message says how to install it."""


def require_cleanlab() -> None:
    """Raises a `MissingLibraryError` where cleanlab is not installed."""
    if find_spec("cleanlab") is None:
        raise MissingLibraryError("labels are ranked by cleanlab, which is not installed: pip install 'vithub[labels]'")


def find_doubtful_labels(checked: PhotoInspection, seed: int = 0) -> list[DoubtfulLabel]:
    """Ranks the labels of all splits by doubt and logs those that are likely wrong.

    A copy of an image is left out, as it would vouch for its own label. Classes of fewer images than folds are left
    out too, and so is all data with any number of labels per image; the source's notes say so.

    Args:
        checked: Inspection with embeddings.
        seed: Seed of the folds.
    """
    notes = checked.source.notes
    if checked.source.multi_label:
        notes.append("wrong labels are looked for only where each image has one label")
        return []
    labels = np.asarray(checked.rows.label, dtype=np.int64)
    usable = labels >= 0
    usable[repeated(np.asarray(checked.rows.digests, dtype=np.uint64).reshape(-1, 2))[0]] = False
    counts = np.bincount(labels[usable], minlength=len(checked.label_sets))
    if rare := [", ".join(checked.label_sets[number]) for number in np.flatnonzero(counts < FOLDS)]:
        notes.append(f"wrong labels are not looked for in classes of fewer than {FOLDS} images: {', '.join(rare[:12])}")
    usable[usable] = counts[labels[usable]] >= FOLDS
    numbers = np.flatnonzero(usable)
    classes, given = np.unique(labels[numbers], return_inverse=True)
    if len(classes) < 2 or checked.embeddings is None:
        notes.append(f"wrong labels are not looked for: fewer than two classes have {FOLDS} images")
        return []
    probabilities = probe_probabilities(checked.embeddings[numbers].astype(np.float32), given, seed)
    order, wrong = rank_labels(given, probabilities)
    names = [", ".join(checked.label_sets[number]) for number in classes]
    found = []
    for place in order.tolist():
        own, best = int(given[place]), int(probabilities[place].argmax())
        one = DoubtfulLabel(
            int(numbers[place]), names[own], names[best], float(probabilities[place, own]), bool(wrong[place])
        )
        found.append(one)
        if one.doubtful:
            message = (
                f"a classifier that has not seen the image says {one.suggested!r} and gives {one.label!r} "
                f"{one.probability:.1%}"
            )
            checked.add("likely wrong label", one.number, partial(str, message))
    return found


def probe_probabilities(embeddings: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Out-of-fold class probabilities of a logistic regression: each image is judged by a probe that has not seen it.

    Args:
        embeddings: Embedding of each image, (N, D).
        labels: Class number of each image, 0 to C - 1, with at least `FOLDS` images of each class, (N,).
        seed: Seed of the folds.

    Returns:
        Probabilities (N, C).
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=300))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last decimals do not change a ranking
        return np.asarray(cross_val_predict(probe, embeddings, labels, cv=folds, method="predict_proba"))


def rank_labels(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks labels by doubt.

    Likely wrong are those that confident learning prunes by noise rate; they come first. Within both parts, labels are
    in the order of their normalised margin: the probability of the label less that of the most probable other class.

    Args:
        labels: Class number of each image, (N,).
        probabilities: Out-of-fold probabilities, (N, C).

    Returns:
        Numbers of the images, the most doubtful first, (N,); and whether each label is likely wrong, bool (N,).
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    wrong = np.asarray(find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1), dtype=bool)
    quality = get_label_quality_scores(labels, probabilities, method="normalized_margin")
    return np.lexsort((quality, ~wrong)), wrong


__all__ = [
    "FOLDS",
    "MissingLibraryError",
    "find_doubtful_labels",
    "probe_probabilities",
    "rank_labels",
    "require_cleanlab",
]
