"""Network, optimiser and batches of a run, and one step of learning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from birdinv.audio.store import Store
from birdinv.data.batches import Segments, TrainingBatches
from birdinv.errors import BirdinvError
from birdinv.networks import build
from birdinv.networks.saved import Description
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import TERMS
from birdinv.training.partition import Partition


class Learner:
    """Learns one step at a time; all that a step does follows from its number and the state.

    Raises:
        BirdinvError: the network cannot be built for the store's segments.
    """

    def __init__(
        self, store: Store, parts: Partition, config: TrainConfig, device: torch.device
    ) -> None:
        self._config, self._device = config, device
        self.model = _fresh_model(store, config).to(device)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self._batches = TrainingBatches(
            Segments(store, parts.labelled),
            Segments(store, parts.unlabelled if config.uses_unlabelled else {}),
            batch_size=config.batch_size,
            seed=config.seed,
        )
        self._objective = config.make_objective()
        self._generator = (
            torch.default_generator
            if device.type == "cpu"
            else torch.cuda.default_generators[device.index]
        )
        self.steps_per_epoch = self._batches.steps_per_epoch
        self.steps = config.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self._config.learning_rate_at(step, self.steps)

    def learn(self, step: int) -> dict[str, float]:
        """Takes step number `step`, from 0; gives the loss terms, `right` of `known` labels.

        Raises:
            BirdinvError: a term is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(step)
        x, y = (part.to(self._device) for part in self._batches.batch(step))
        self._generator.manual_seed(_mixed(self._config.seed, step))  # of dropout
        self.optimiser.zero_grad(set_to_none=True)
        terms = self._objective(self.model, x, y)
        terms.total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

        known = y >= 0
        present = [name for name in TERMS if getattr(terms, name) is not None]
        if known.all() and "entropy" in present:
            present.remove("entropy")  # of no sample: 0, and nothing to look at
        right = (terms.logits.argmax(dim=1) == y)[known].sum()
        numbers = [*(getattr(terms, name).detach() for name in present), right, known.sum()]
        values = torch.stack([number.double() for number in numbers]).tolist()  # one wait for a GPU
        result = dict(zip([*present, "right", "known"], values, strict=True))
        # The parts before the whole: the sentence should name what broke it.
        for name in sorted(present, key=lambda name: name == "total"):
            if not math.isfinite(result[name]):
                raise self._not_finite(f"the loss is not finite at step {step + 1}", step, name)
        return result

    def require_finite(self, step: int) -> None:
        """Raises BirdinvError where `step` steps have left weights that are not finite."""
        for name, parameter in self.model.named_parameters():
            if not parameter.isfinite().all():
                raise self._not_finite(f"a weight is not finite after step {step}", step - 1, name)

    def _not_finite(self, what: str, step: int, name: str) -> BirdinvError:
        beta = ", or a smaller --beta" if self._config.objective == "weighted" else ""
        return BirdinvError(
            f"{what} (epoch {step // self.steps_per_epoch + 1}): {name} has run away; train again "
            f"into a new folder with a smaller --learning-rate than {self._config.learning_rate:g}"
            f"{beta}"
        )


def choose_device(name: str) -> torch.device:
    """The device `name` stands for; "auto" takes CUDA where there is one.

    Raises:
        BirdinvError: no such device, or none here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=name).device
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither a CPU nor a CUDA device")
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0][:100]
        raise BirdinvError(
            f"the device {name!r} cannot be used here ({first}); give cpu or auto"
        ) from error
    return device


def describe_model(store: Store, config: TrainConfig, model: nn.Module) -> Description:
    """What `model.json` has to say about a network trained on a store."""
    sizes: dict[str, Any] = model.sizes  # type: ignore[assignment]  # all our networks have them
    return Description(
        network=config.network,
        sizes=sizes,
        classes=store.classes,
        non_events=store.non_events,
        sample_rate=store.sample_rate,
        segment_samples=store.windows.segment,
        hop_samples=store.windows.hop,
    )


def _fresh_model(store: Store, config: TrainConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return build(
            config.network,
            classes=len(store.classes),
            shape=(1, store.windows.segment),
            dropout=config.dropout,
        ).train()


def _mixed(seed: int, step: int) -> int:
    """A generator seed for one step, unlike that of any other step or nearby seed."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
