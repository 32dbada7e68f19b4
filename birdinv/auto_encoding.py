"""The loss of stacked what-where auto-encoders (SW 1, 2), for networks with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from birdinv.balance import Balance
from birdinv.consistency import Consistency
from birdinv.inversion import Reconstruction
from birdinv.loss_weights import Weight, check_weight, weight_at
from birdinv.networks.swwae import SWWAE, Decoded
from birdinv.objective import Objective, Weighing
from birdinv.terms import Distance


class WhatWhereObjective(Objective):
    """`λ_NLL NLL + λ_rec ‖x − x̃‖² + λ_M Σ_m ‖x_m − x̃_m‖²`, each norm a mean per element (SW 1, 2).

    The reconstructions are those of the network's decoder, of all samples; the sum is over the
    pooled levels but for the last, which the decoder begins with. Gradients go through both sides
    of each. The weights alone make the three modes of SW §3.2: supervised training with
    `rec = mid = 0`, unsupervised with `nll = 0`, semi-supervised with all of them.

    Args:
        rec: `λ_rec`, of the input.
        mid: `λ_M`, of each level between.
        nll: of the negative log-likelihood of the labels.
        sparsity: of the sum over the pooled levels of the mean of `|x_m|`, the L1 penalty that SW
            table 4 compares with; 0 in SWWAE itself.
        distance: as of the other objectives, see `losses`.
        balance, consistency, ramp: see `losses`; the paper has none of them.

    Raises:
        TypeError: when called with a network that is no `networks.SWWAE`.

    Example:
        >>> import birdinv, torch
        >>> model = birdinv.networks.build("swwae:(8)5c-2p-(8)3c-2p-10fc", shape=(1, 32, 32))
        >>> objective = birdinv.WhatWhereObjective(rec=1.0, mid=0.2)
        >>> y = torch.tensor([2, birdinv.UNLABELED])
        >>> terms = objective(model, torch.randn(2, 1, 32, 32), y)
        >>> sorted(terms.levels)
        ['input', 'stage1']
    """

    def __init__(
        self,
        rec: Weight,
        mid: Weight,
        *,
        nll: Weight = 1.0,
        sparsity: Weight = 0.0,
        distance: Literal["squared", "cosine"] | Distance = "squared",
        balance: Weight | Balance | None = None,
        consistency: Consistency | None = None,
        ramp: Weight = 1.0,
    ) -> None:
        super().__init__(
            reduction="mean",
            distance=distance,
            balance=balance,
            consistency=consistency,
            ramp=ramp,
            exact=False,
        )
        for name, weight in (("rec", rec), ("mid", mid), ("nll", nll), ("sparsity", sparsity)):
            check_weight(name, weight)
        self.rec, self.mid, self.nll, self.sparsity = rec, mid, nll, sparsity

    def reconstruct(
        self, model: nn.Module, x: Tensor, layers: Sequence[str] = ()
    ) -> Reconstruction:
        """Logits and the decoder's reconstructions of the input and of `layers`, pooled levels."""
        decoded: Decoded = model(x, decode=True)
        levels = {name: decoded.levels[name] for name in layers}
        return Reconstruction(decoded.logits, levels, x, decoded.x_tilde, None)

    def _weighing(self, model: nn.Module, step: int | None) -> Weighing:
        while isinstance(model, DistributedDataParallel):
            model = model.module
        if not isinstance(model, SWWAE):
            raise TypeError(
                f"the network is a {type(model).__name__}, which has no decoder; expected one that "
                'birdinv.networks.build("swwae:(64)5c-2p-10fc", …) makes'
            )
        mid = weight_at("mid", self.mid, step)
        between = [mid] * (len(model.layers) - 1)
        return Weighing(
            label=weight_at("nll", self.nll, step),
            entropy=0.0,
            levels=[weight_at("rec", self.rec, step), *between, 0.0],
            layers=model.layers,
            sparsity=weight_at("sparsity", self.sparsity, step),
        )
