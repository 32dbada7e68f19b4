"""A network as an affine spline: what it matches, how surely, how it could be fooled (SPL).

Of any `nn.Module` that gives logits `[N, K]` for inputs `[N, C, *S]`; nothing in it is changed.
"""

from birdinv.spline.adversarial import (
    Flips,
    adversarial_direction,
    robustness_curve,
    smallest_flips,
)
from birdinv.spline.boundaries import boundary_distance
from birdinv.spline.lipschitz import Lipschitz, lipschitz
from birdinv.spline.measures import Encoding, Generalisation, encode, generalisation, sparsity
from birdinv.spline.norms import Norm, of_convolution, spectral_norm
from birdinv.spline.regions import Code, Regions, blocks, codes, count_regions, separations
from birdinv.spline.rules import softmax_constant
from birdinv.spline.templates import Templates, iter_templates, optimal_templates, templates
from birdinv.spline.tracing import Layer

__all__ = [
    "Code",
    "Encoding",
    "Flips",
    "Generalisation",
    "Layer",
    "Lipschitz",
    "Norm",
    "Regions",
    "Templates",
    "adversarial_direction",
    "blocks",
    "boundary_distance",
    "codes",
    "count_regions",
    "encode",
    "generalisation",
    "iter_templates",
    "lipschitz",
    "of_convolution",
    "optimal_templates",
    "robustness_curve",
    "separations",
    "smallest_flips",
    "softmax_constant",
    "sparsity",
    "spectral_norm",
    "templates",
]
