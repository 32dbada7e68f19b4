"""The reconstruction error as an energy: low where a network recognises its input (INV §4).

An energy-based generative adversarial network (EBGAN, Zhao et al. 2016) needs a discriminator that
gives real inputs a low energy and generated ones a high energy. There it is an auto-encoder; here
it is any network with its own inverse, at half the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from birdinv.inversion import reconstruct


def energy(model: nn.Module, x: Tensor, *, exact: bool = False) -> Tensor:
    """`R(x) / D = ‖A[x]ᵀ f(x) − x‖² / D`, one number a sample, `[N]`.

    Differentiable in the parameters of the network, and in `x` where it asks for a gradient. Where
    the first layer has a Gram matrix the value is a difference of large sums, off by a rounding of
    `‖x‖²`, and so may fall a little below 0 for a perfect reconstruction; `exact=True` never does.

    Args:
        model: gives outputs `[N, K]` for `x`; in eval mode a sample's energy is its own alone.
        x: inputs `[N, C, *S]`.
        exact: see `reconstruct`.

    Raises:
        TypeError, ValueError, RuntimeError: what `reconstruct` refuses.

    Reference: INV 8 and §4.
    """
    return reconstruct(model, x, exact=exact).squared_error() / x[0].numel()


@dataclass(frozen=True)
class EnergyObjective:
    """The two losses of an energy-based GAN, the energy being `R(x) / D` (INV §4).

    `D(x) = R(x) / D`; the discriminator lowers `mean D(real) + mean max(0, m − D(fake))`, the
    generator `mean D(fake)`.

    Args:
        margin: m, the energy up to which generated inputs are pushed, above 0. A network that
            gives zeros has the energy `mean x²`: below that is where recognition happens.

    Example:
        >>> import birdinv, torch
        >>> network = torch.nn.Linear(4, 2)
        >>> objective = birdinv.EnergyObjective(margin=1.0)
        >>> real, fake = torch.randn(8, 4), torch.randn(8, 4, requires_grad=True)
        >>> objective.discriminator(network, real, fake.detach()).backward()
        >>> objective.generator(network, fake).backward()
    """

    margin: float

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise ValueError(f"margin is {self.margin}; expected a number above 0")

    def discriminator(self, model: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """A scalar that lowers the energy of `real` and lifts that of `fake` up to the margin.

        Give `fake.detach()`: the discriminator's step is not the generator's.
        """
        lifted = functional.relu(self.margin - energy(model, fake))
        return energy(model, real).mean() + lifted.mean()

    def generator(self, model: nn.Module, fake: Tensor) -> Tensor:
        """A scalar, the mean energy of `fake`, with a gradient in it.

        Its backward pass fills the network's own `.grad` too: zero them before the next step.
        """
        return energy(model, fake).mean()
