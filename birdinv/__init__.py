"""Networks that invert themselves, for learning from few labels and many unlabelled recordings.

Any deep network of the usual parts is piecewise affine, `f(x) = A[x]x + b[x]`. The convention,
stated once: `x` is a batch `[N, C, *S]`, `f(x)` are its logits `[N, K]`, `A[x] = df/dx` is the
Jacobian, whose rows are the templates of the classes, and `A[x]ᵀ f(x)`, one backward pass, is the
reconstruction of `x`. Papers are cited as INV (Deep network inversion, 2017), MS (Multiscale
inversion, 2018), SPL (Spline theory, 2017) and SW (Stacked what-where auto-encoders, 2016).

The names below are loaded when they are first used, so that reading audio does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdinv import networks as networks
    from birdinv import prediction as prediction
    from birdinv import spline as spline
    from birdinv.audio.store import Store as Store
    from birdinv.auto_encoding import WhatWhereObjective as WhatWhereObjective
    from birdinv.balance import Balance as Balance
    from birdinv.data.segmenting import segment as segment
    from birdinv.energy_based import EnergyObjective as EnergyObjective
    from birdinv.energy_based import energy as energy
    from birdinv.errors import BirdinvError as BirdinvError
    from birdinv.evaluation import evaluate as evaluate
    from birdinv.inversion import invert as invert
    from birdinv.inversion import reconstruct as reconstruct
    from birdinv.learned_weights import LearnedWeights as LearnedWeights
    from birdinv.losses import LayerWeightedObjective as LayerWeightedObjective
    from birdinv.losses import ParameterFreeObjective as ParameterFreeObjective
    from birdinv.losses import WeightedObjective as WeightedObjective
    from birdinv.networks.layers import normalise as normalise
    from birdinv.prediction.run import predict as predict
    from birdinv.terms import UNLABELED as UNLABELED
    from birdinv.terms import Terms as Terms
    from birdinv.training.loop import train as train

__version__ = "0.1.0"

_HOME = {
    "Balance": "balance",
    "BirdinvError": "errors",
    "EnergyObjective": "energy_based",
    "LayerWeightedObjective": "losses",
    "LearnedWeights": "learned_weights",
    "ParameterFreeObjective": "losses",
    "Store": "audio.store",
    "Terms": "terms",
    "UNLABELED": "terms",
    "WeightedObjective": "losses",
    "WhatWhereObjective": "auto_encoding",
    "energy": "energy_based",
    "evaluate": "evaluation",
    "invert": "inversion",
    "networks": "",
    "normalise": "networks.layers",
    "predict": "prediction.run",
    "prediction": "",
    "reconstruct": "inversion",
    "segment": "data.segmenting",
    "spline": "",
    "train": "training.loop",
}

__all__ = [
    "UNLABELED",
    "Balance",
    "BirdinvError",
    "EnergyObjective",
    "LayerWeightedObjective",
    "LearnedWeights",
    "ParameterFreeObjective",
    "Store",
    "Terms",
    "WeightedObjective",
    "WhatWhereObjective",
    "__version__",
    "energy",
    "evaluate",
    "invert",
    "networks",
    "normalise",
    "predict",
    "prediction",
    "reconstruct",
    "segment",
    "spline",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'birdinv' has no attribute {name!r}")
    if not _HOME[name]:
        return importlib.import_module(f"birdinv.{name}")
    return getattr(importlib.import_module(f"birdinv.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
