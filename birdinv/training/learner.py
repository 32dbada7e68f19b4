"""Network, optimiser and batches of a run, and one step of learning."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from birdinv.data.batches import Source, TrainingBatches
from birdinv.errors import BirdinvError
from birdinv.networks import build
from birdinv.networks.saved import Description
from birdinv.samples import Samples
from birdinv.terms import log_probabilities
from birdinv.training.alarms import SHARES
from birdinv.training.checkpoint import Stateful
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import TERMS
from birdinv.training.scoring import Reconstruct
from birdinv.training.task import Task

WARM = 10  # steps: the average of the weights begins with as few of them


class Learner:
    """Learns one step at a time; all that a step does follows from its number and the state.

    Attributes:
        model: the network that learns.
        judged: the network to judge and keep: `model`, or with `average` one whose weights are the
            exponential moving average of its weights.

    Raises:
        BirdinvError: the network cannot be built for inputs of this shape, or what is no image is
            to be moved.
    """

    def __init__(self, task: Task, config: TrainConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self.model = fresh_model(config, len(task.classes), task.shape).to(device)
        self.judged = copy.deepcopy(self.model) if config.average else self.model
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        if config.translate and len(task.shape) != 3:
            raise BirdinvError(
                f"--translate is {config.translate}, and inputs of shape {task.shape} are no "
                "images; give 0"
            )
        if config.augment != "none" and task.background is None:
            raise BirdinvError(
                f"--augment is {config.augment}, and it changes recordings, not images; give none"
            )
        self._batches = TrainingBatches(
            task.labelled,
            task.unlabelled if config.uses_unlabelled or task.paced else None,
            batch_size=config.batch_size,
            seed=config.seed,
            labelled_only=not config.uses_unlabelled,
            drawing=config.drawing(task.background),
        )
        self.steps_per_epoch = self._batches.steps_per_epoch
        self.steps = config.steps or max(1, round(config.epochs * self.steps_per_epoch))
        self._objective = config.make_objective(
            self.steps,
            self.steps_per_epoch,
            len(self.model.layers),  # type: ignore[arg-type]  # all our networks have them
            _how_many(task.unlabelled) / max(1, _how_many(task.labelled)),
        )
        self._objective.watch = None  # the run says it itself, with the classes' names
        self._classes = task.classes
        self._generator = (
            torch.default_generator
            if device.type == "cpu"
            else torch.cuda.default_generators[device.index]
        )
        self.steps_per_check = max(1, round(config.check_every * self.steps_per_epoch))

    @property
    def parts(self) -> dict[str, Stateful]:
        """All whose state a checkpoint has to hold, by the name it has there."""
        parts: dict[str, Stateful] = {"model": self.model, "optimiser": self.optimiser}
        if self.judged is not self.model:
            parts["average"] = self.judged
        if self._objective.balance is not None:
            parts["balance"] = self._objective.balance
        return parts

    @property
    def reconstruct(self) -> Reconstruct:
        """Whose reconstructions are to be judged: by inversion, or by the network's decoder."""
        return self._objective.reconstruct

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
        first = self._config.steps_without_labels(self.steps)
        if self._config.freeze and first:
            self.model.freeze_encoder(step >= first)  # type: ignore[operator]  # it is an SWWAE
        x, y, groups, view = self._batches.batch(step).to(self._device)
        self._generator.manual_seed(_mixed(self._config.seed, step))  # of dropout
        self.optimiser.zero_grad(set_to_none=True)
        reduced = self._config.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=reduced):
            terms = self._objective(
                self.model, x, y, groups=groups, view=view, teacher=self.judged, step=step
            )
        terms.total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        if self.judged is not self.model:
            self._average(step)

        known = y >= 0
        present = [name for name in TERMS if getattr(terms, name) is not None]
        if known.all() and "entropy" in present:
            present.remove("entropy")  # of no sample: 0, and nothing to look at
        numbers = {name: getattr(terms, name).detach() for name in present}
        numbers |= {"right": (terms.logits.argmax(dim=1) == y)[known].sum(), "known": known.sum()}
        if groups is not None:
            agreeing, grouped = _agreement(self.model, terms.logits, y, groups)
            numbers |= {"agreeing": agreeing, "grouped": grouped}
        numbers |= {
            SHARES + name: count
            for name, count in zip(self._classes, terms.histogram.unbind(), strict=True)
        }
        values = torch.stack([number.double() for number in numbers.values()])
        result = dict(zip(numbers, values.tolist(), strict=True))  # one wait for a GPU
        # The parts before the whole: the sentence should name what broke it.
        for name in sorted(present, key=lambda name: name == "total"):
            if not math.isfinite(result[name]):
                raise self._not_finite(f"the loss is not finite at step {step + 1}", step, name)
        return result

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Moves the average towards the weights, faster in the first steps, which are far off."""
        share = 1 - min(self._config.average, (1 + step) / (WARM + step))
        averages: list[Tensor] = list(self.judged.parameters())
        weights: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averages, weights, share)
        for average, buffer in zip(self.judged.buffers(), self.model.buffers(), strict=True):
            average.copy_(buffer)

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


def _how_many(samples: Source) -> int:
    """Recordings, or images."""
    return len(np.unique(samples.recordings))


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


def describe_model(task: Task, config: TrainConfig, model: nn.Module) -> Description:
    """What `model.json` has to say about a network trained on a task."""
    sizes: dict[str, Any] = model.sizes  # type: ignore[assignment]  # all our networks have them
    return Description(config.network, sizes, task.classes, task.hearing)


def _agreement(
    model: nn.Module, logits: Tensor, y: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor]:
    """How many unlabelled samples are predicted to be what their group is, and of how many."""
    mean = Samples(model, y, groups=groups).mean_of_group(log_probabilities(logits).exp())
    grouped = (y < 0) & (groups >= 0)
    return ((logits.argmax(dim=1) == mean.argmax(dim=1)) & grouped).sum(), grouped.sum()


def fresh_model(config: TrainConfig, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The network of a run as it was before the first step."""
    options = dict(config.options)
    if config.dropout is not None:
        options["dropout"] = config.dropout
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return build(config.network, classes=classes, shape=shape, **options).train()


def _mixed(seed: int, step: int) -> int:
    """A generator seed for one step, unlike that of any other step or nearby seed."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
