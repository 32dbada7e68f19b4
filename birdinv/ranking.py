"""Which recordings to look at: those a network is unsure of and that are unlike each other.

Recordings are chosen one after the other, each time the one with the largest

    score = u · min over j of (1 − cos(e, e_j)),

where `u` is how unsure the network is of the recording, `e` its embedding, and `e_j` those of the
recordings that have a label or were chosen before. While there are none of them the score is `u`.
The first factor is uncertainty sampling (Lewis & Gale, A sequential algorithm for training text
classifiers, 1994), the second the greedy choice of a core-set (Sener & Savarese, Active learning
for convolutional neural networks, 2018).
"""

from __future__ import annotations

import numpy as np

DIGITS = 6  # of scores that are compared: float32 tells no more apart, whatever the batch


def rank(
    embeddings: np.ndarray,
    uncertainties: np.ndarray,
    n: int,
    known: np.ndarray | None = None,
) -> list[int]:
    """The `n` recordings to label next, the best first, by the greedy choice of the module's text.

    Scores are compared to six decimals, and of equal ones the first recording is taken.

    Args:
        embeddings: `[R, E]`, of any lengths.
        uncertainties: `[R]`, from 0.
        n: how many; all R where there are fewer.
        known: embeddings of the recordings that have a label, `[L, E]`; None = there are none.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    return [index for index, _ in ranked(embeddings, uncertainties, n, known)]


def ranked(
    embeddings: np.ndarray, uncertainties: np.ndarray, n: int, known: np.ndarray | None
) -> list[tuple[int, float]]:
    """(index, score) of each that `rank` chooses, with its arguments and errors."""
    known = np.zeros((0, *embeddings.shape[1:])) if known is None else known
    if embeddings.ndim != 2 or known.shape[1:] != embeddings.shape[1:]:
        raise ValueError(
            f"embeddings {list(embeddings.shape)} and known {list(known.shape)}; expected [R, E] "
            "and [L, E]"
        )
    if uncertainties.shape != embeddings.shape[:1]:
        raise ValueError(
            f"uncertainties {list(uncertainties.shape)} of {len(embeddings)} recordings; expected "
            "one each"
        )
    if not all(np.isfinite(each).all() for each in (embeddings, uncertainties, known)):
        raise ValueError("embeddings, uncertainties or known hold numbers that are not finite")
    units = units_of(embeddings)
    nearest = np.full(len(units), np.inf)
    for other in units_of(known):
        nearest = np.minimum(nearest, 1 - units @ other)
    left = np.ones(len(units), bool)
    chosen = []
    for _ in range(min(n, len(units))):
        distances = np.where(np.isinf(nearest), 1.0, np.clip(nearest, 0.0, 2.0))
        scores = np.where(left, np.round(uncertainties * distances, DIGITS), -1.0)
        best = int(np.argmax(scores))
        chosen.append((best, float(scores[best])))
        left[best] = False
        nearest = np.minimum(nearest, 1 - units @ units[best])
    return chosen


def units_of(vectors: np.ndarray) -> np.ndarray:
    """The vectors at length 1; those of length 0 stay, at a distance of 1 from all."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))
