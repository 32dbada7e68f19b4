"""Changes of a waveform that leave its class as it is: how, not what, was recorded.

All are made before the normalisation and drawn from a generator that is given: the caller seeds it
from (seed, role, step), so that no two batches, halves or workers share their numbers. The
libraries that do this either need torchaudio, whose last release does not import beside every
build of torch, or draw from a global generator, and then no run can be repeated or resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]
"""Float32 waveforms `[B, 1, T]`, as read, to changed ones; may write into what it is given."""

_NOISE = 2**20  # samples of white noise, drawn once: each waveform gets a stretch of them


@dataclass(frozen=True)
class Augmentation:
    """How strongly waveforms are changed; the defaults change nothing.

    Attributes:
        polarity: upside down, or not.
        gain_db: most by which a waveform grows or shrinks before noise is added. The noise keeps
            the level it had by `noise_db`: without noise the normalisation undoes a gain.
        noise_db: signal-to-noise ratios between which that of white noise is drawn; None = none.
        filter: largest tap behind the first of a filter of three, in [0, 1): microphones,
            distance and foliage colour a sound.
        background: fraction of waveforms into which a stretch of background is mixed.
        background_db: signal-to-background ratios between which its level is drawn.
    """

    polarity: bool = False
    gain_db: float = 0.0
    noise_db: tuple[float, float] | None = None
    filter: float = 0.0
    background: float = 0.0
    background_db: tuple[float, float] = (0.0, 30.0)

    def change(
        self, rng: np.random.Generator, background: Callable[[np.ndarray], Tensor] | None = None
    ) -> Change:
        """What to do to one batch, or part of one.

        Args:
            background: random numbers in [0, 1) `[n]` to stretches of background `[n, 1, T]`;
                None where there is none: then none is mixed in.
        """

        def apply(x: Tensor) -> Tensor:
            n = len(x)
            x = x.sub_(x.mean(dim=-1, keepdim=True))  # in place: half of a step goes to copies
            if self.filter:
                taps = rng.uniform(-self.filter, self.filter, (2, n, 1, 1)).astype(np.float32)
                x = _filtered(x, torch.from_numpy(taps))
            level = _levels(x)  # of the signal, before the gain
            factor = torch.ones(n, 1, 1)
            if self.gain_db:
                factor *= _ratio(rng, n, -self.gain_db, self.gain_db)
            if self.polarity:  # that of noise does not matter, nor that of the background beside it
                factor *= torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), (n, 1, 1)))
            x.mul_(factor)
            if self.background and background is not None:
                chosen = torch.from_numpy(rng.uniform(size=n) < self.background)
                other = background(rng.uniform(size=n))
                other.sub_(other.mean(dim=-1, keepdim=True))
                low, high = self.background_db
                share = level / _levels(other).clamp(min=1e-6) * _ratio(rng, n, -high, -low)
                x.addcmul_(share * chosen[:, None, None], other)
            if self.noise_db is not None:
                low, high = self.noise_db
                x.addcmul_(level * _ratio(rng, n, -high, -low), _white(rng, x))
            return x

        return apply


# "light" is what labels survive on any recording; "strong" is for methods that compare two views.
AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(polarity=True, gain_db=6.0, noise_db=(10.0, 40.0)),
    "strong": Augmentation(
        polarity=True, gain_db=6.0, noise_db=(0.0, 40.0), filter=0.5, background=0.5
    ),
}


def _filtered(x: Tensor, taps: Tensor) -> Tensor:
    """`y(t) = x(t) + a x(t−1) + b x(t−2)` with taps `[2, B, 1, 1]` of each waveform."""
    y = x.clone()
    for delay, tap in enumerate(taps, start=1):
        y[..., delay:].addcmul_(x[..., :-delay], tap)
    return y


def _levels(x: Tensor) -> Tensor:
    """Root mean squares `[B, 1, 1]` of waveforms without an offset."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return lengths.div_(math.sqrt(x.shape[-1]))


def _ratio(rng: np.random.Generator, n: int, low_db: float, high_db: float) -> Tensor:
    """Factors `[n, 1, 1]` whose decibels are uniform between two."""
    decibels = rng.uniform(low_db, high_db, (n, 1, 1)).astype(np.float32)
    return torch.from_numpy(10 ** (decibels / 20))


def _white(rng: np.random.Generator, x: Tensor) -> Tensor:
    """White noise of deviation 1 in the shape of `x`; to draw it anew would cost 5 times this."""
    stretches = _bank(max(_NOISE, 16 * x.shape[-1])).unfold(0, x.shape[-1], 1)
    return stretches[torch.from_numpy(rng.integers(len(stretches), size=len(x)))][:, None]


@lru_cache(maxsize=2)
def _bank(samples: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(samples, np.float32))
