"""Objectives wherever people train: two processes = one, parts = the whole, checkpointed = not,
bfloat16 ≈ float32, GPU = CPU. What cannot be right is refused.
"""

import multiprocessing
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointError, checkpoint

import birdinv
from birdinv import Balance, LayerWeightedObjective, ParameterFreeObjective, WeightedObjective

TERMS = ("total", "cross_entropy", "entropy", "reconstruction", "balance")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


# Networks ------------------------------------------------------------------------------------


class Named(nn.Sequential):
    """Stages that the network names itself, as ours do."""

    @property
    def layers(self):
        return [str(i) for i in range(len(self) - 1)]


class Attention(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.parts, self.out, self.dropout = nn.Linear(8, 24), nn.Linear(8, 8), dropout

    def forward(self, z):
        q, k, v = self.parts(z).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout if self.training else 0.0
        )
        return z + self.out(heard.transpose(1, 2).flatten(2))


class Stages(nn.Module):
    """Frames, something over them, a head; any of the three checkpointed, or "all"."""

    layers = ("first", "middle")

    def __init__(self, *checkpointed, linear=False, attention=False, dropout=0.0, **options):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(1, 8, 4, 2), nn.Softplus())
        if linear:
            self.first = nn.Sequential(nn.Linear(16, 56), nn.Unflatten(2, (8, 7)), nn.Flatten(1, 2))
        dense = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(dropout))
        self.middle = Attention(dropout) if attention else dense
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 7, 3))
        self.checkpointed, self.options = checkpointed, {"use_reentrant": False, **options}

    def through(self, name, function, z):
        if name in self.checkpointed:
            return checkpoint(function, z, **self.options)
        return function(z)

    def stages(self, x):
        frames = self.through("first", self.first, x).transpose(1, 2)
        return self.through("head", self.head, self.through("middle", self.middle, frames))

    def forward(self, x):
        return self.through("all", self.stages, x)


class Last(nn.Module):
    """The last output of a recurrent layer."""

    layers = ()

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.recurrent, self.head = kind(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Spare(Named):
    """One layer more than is used."""

    def __init__(self, *stages):
        super().__init__(*stages)
        self.spare = nn.Linear(2, 2)

    layers = ("0",)

    def forward(self, x):
        return self[1](self[0](x))


def dense():
    return Named(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), (6,)


def images():
    stages = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.01))
    later = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.01))
    network = Named(stages, later, nn.Sequential(nn.Flatten(), nn.Linear(4 * 2 * 2, 3)))
    stages[1].running_mean.uniform_(-0.2, 0.2)
    return network.eval(), (2, 8, 8)


def bird10():
    sizes = {"classes": 3, "shape": (1, 4700), "width": 4, "dense": 5}
    return birdinv.networks.build("bird10", **sizes).eval(), (1, 4700)


def spare():
    return Spare(nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 3)), (6,)


def transformer():
    class Transformer(Named):
        def forward(self, x):
            return self[2](self[1](self[0](x)).mean(dim=1))

    encoder = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    return Transformer(nn.Linear(6, 16), encoder, nn.Linear(16, 3)), (5, 6)


NETWORKS = {
    "dense": dense,
    "images": images,
    "bird10": bird10,
    "spare": spare,
    "transformer": transformer,
    "lstm": lambda: (Last(), (5, 6)),
    "checkpointed": lambda: (Stages("first", "middle"), (1, 16)),
}


# Each is made anew for every use: some remember. `at` is what a wrapper puts before layers' names.
OBJECTIVES = {
    "inv10": lambda at: WeightedObjective(0.7, 0.3),
    "spl82": lambda at: WeightedObjective(0.6, 0.4, variant="spl82"),
    "ms5": lambda at: WeightedObjective(0.6, 0.4, variant="ms5"),
    "sum": lambda at: WeightedObjective(0.6, 0.5, reduction="sum"),
    "cosine": lambda at: WeightedObjective(0.6, 0.5, distance="cosine"),
    "exact": lambda at: WeightedObjective(0.6, 0.5, exact=True),
    "supervised": lambda at: WeightedObjective(1.0, 0.3),
    "unsupervised": lambda at: WeightedObjective(0.0, 0.3),
    "reconstruction": lambda at: WeightedObjective(0.0, 1.0),
    "global": lambda at: ParameterFreeObjective("global"),
    "multiscale": lambda at: ParameterFreeObjective("multiscale"),
    "layers": lambda at: LayerWeightedObjective(1.0, 0.1, 0.3),
}
BALANCED = {
    "balance": lambda at: WeightedObjective(0.6, 0.3, balance=0.8),
    "memory": lambda at: ParameterFreeObjective("global", balance=Balance(memory=0.7)),
    "prior": lambda at: LayerWeightedObjective(
        1.0, 0.1, 0.3, balance=Balance(0.5, memory=0.4, prior=[0.5, 0.3, 0.2])
    ),
}
EVERY = {**OBJECTIVES, **BALANCED}
NAMED = {"named": lambda at: ParameterFreeObjective("multiscale", layers=[at + "0"])}


# Two processes -------------------------------------------------------------------------------

LABELS = {  # of each process
    "evenly": ([0, -1, -1, 2], [1, -1, -1, 2]),
    "unevenly": ([0, 2, -1], [-1, -1, 1, -1, -1]),
    "one holds none": ([0, -1, 2], [-1, -1]),
    "one holds only labels": ([0, 1], [-1, 2, -1]),
    "apart": ([0, 2, 1], [-1, -1, -1, -1]),
    "none anywhere": ([-1, -1], [-1, -1, -1]),
    "only labels": ([0, 1, 1], [2]),
}


@dataclass(frozen=True)
class Case:
    network: str
    objective: str
    labels: str = "unevenly"
    steps: int = 2
    parts: int = 1  # of the batch of each process
    together: bool = False  # one backward pass for all parts
    looks: bool = False  # calls the objective without gradients before each step
    trains: bool = False
    options: dict = field(default_factory=dict)  # of DistributedDataParallel

    def __str__(self):
        flags = [name for name in ("together", "looks", "trains") if getattr(self, name)]
        flags += [f"{self.parts} parts"] * (self.parts > 1) + list(self.options)
        return "-".join([self.network, self.objective, self.labels, *flags])


CASES = [
    *(Case("dense", objective, labels) for objective in EVERY for labels in LABELS),
    *(
        Case(network, objective, labels)
        for network in ("images", "bird10", "checkpointed")
        for objective in EVERY
        for labels in ("unevenly", "apart")
    ),
    Case("dense", "named"),
    *(
        Case(network, objective, options={option: True})
        for network in ("bird10", "spare")
        for objective in ("inv10", "multiscale")
        for option in ("find_unused_parameters", "gradient_as_bucket_view")
        if (network, option) != ("spare", "gradient_as_bucket_view")
    ),
    Case("dense", "supervised", options={"static_graph": True}),
    *(
        Case(network, objective, labels, steps=2, parts=3)
        for network in ("dense", "bird10")
        for objective in EVERY
        for labels in ("unevenly", "apart")
    ),
    *(Case("dense", name, parts=2, together=True) for name in ("inv10", "multiscale")),
    *(
        Case("dense", "inv10", looks=True, options=options)
        for options in ({}, {"find_unused_parameters": True})
    ),
    *(
        Case(network, objective, steps=6, trains=True)
        for network in ("dense", "bird10")
        for objective in ("inv10", "memory", "multiscale")
    ),
]
REFUSED = [
    Case("dense", "inv10", options={"static_graph": True}),
    Case("bird10", "multiscale", options={"static_graph": True}),
]


def outcome(case, rank=None, device="cpu"):
    """What every step of a case gives to one process, or to one of two."""
    torch.manual_seed(0)
    model, shape = NETWORKS[case.network]()
    model = model.double().to(device)
    parameters = list(model.parameters())
    prefix = ""
    if rank is not None:
        model, prefix = DistributedDataParallel(model, **case.options), "module."
    objective = {**EVERY, **NAMED}[case.objective](prefix)
    optimiser = torch.optim.Adam(parameters, lr=0.01)
    first, second = LABELS[case.labels]
    every = torch.tensor(first + second, device=device)
    rows = torch.arange(len(every), device=device).split([len(first), len(second)])
    own = rows if rank is None else rows[rank : rank + 1]
    split = [each.tensor_split(case.parts) for each in own]
    parts = [torch.cat(each) for each in zip(*split, strict=True)]
    whole = every[torch.cat(own)] if case.parts > 1 else None
    found = []
    for _ in range(case.steps):
        x = torch.randn(len(every), *shape, dtype=torch.float64).to(device)
        optimiser.zero_grad()
        if case.looks:
            with torch.no_grad():
                objective(model, x[parts[0]], every[parts[0]])
        numbers, counts, logits, total = [], 0, [], 0.0
        for i, part in enumerate(parts):
            alone = rank is not None and not case.together and i + 1 < len(parts)
            with model.no_sync() if alone else nullcontext():
                terms = objective(model, x[part], every[part], whole=whole)
                total = total + terms.total
                if not case.together:
                    terms.total.backward()
            values = {name: getattr(terms, name) for name in TERMS} | {
                name.removeprefix(prefix): level for name, level in terms.levels.items()
            }
            numbers.append({name: v.item() for name, v in values.items() if v is not None})
            counts, logits = counts + terms.histogram.cpu(), [*logits, terms.logits.cpu()]
        if case.together:
            total.backward()
        if case.trains:
            optimiser.step()
        found.append(
            {
                "gradients": [None if p.grad is None else p.grad.cpu() for p in parameters],
                "parameters": [p.detach().cpu().clone() for p in parameters],
                "numbers": numbers,
                "histogram": counts,
                "logits": torch.cat(logits),
            }
        )
    return found


def same(case, ranks, one):
    """Asserts that what two processes found is what one found."""
    for first, second, whole in zip(*ranks, one, strict=True):
        for kind in ("gradients", "parameters"):
            for a, b, c in zip(first[kind], second[kind], whole[kind], strict=True):
                assert (a is None) == (b is None) == (c is None)
                if c is not None:
                    torch.testing.assert_close(a, c, rtol=0, atol=1e-10)
                    torch.testing.assert_close(b, c, rtol=0, atol=1e-10)
        for a, b, c in zip(first["numbers"], second["numbers"], whole["numbers"], strict=True):
            assert a.keys() == b.keys() == c.keys()
            for name, value in c.items():
                assert (a[name] + b[name]) / 2 == pytest.approx(value, abs=1e-10), name
            if "balance" in c:
                assert a["balance"] == pytest.approx(b["balance"], abs=1e-12)
        assert torch.equal(first["histogram"] + second["histogram"], whole["histogram"])
        if case.parts == 1:
            both = torch.cat([first["logits"], second["logits"]])
            torch.testing.assert_close(both, whole["logits"], rtol=0, atol=1e-10)


def process(rank, folder, cases, refused, device):
    """One of two processes: runs every case and leaves what it found in `folder`."""
    torch.set_num_threads(1)
    meeting = (folder / "meeting").as_uri()
    limit = timedelta(seconds=60)
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit
    )
    found = {str(case): outcome(case, rank, device) for case in cases}
    for case in refused:
        try:
            outcome(case, rank, device)
            found[str(case)] = "was not refused"
        except RuntimeError as error:
            found[str(case)] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def two_processes(folder: Path, cases, refused=(), device="cpu", seconds=120):
    """What both found: a dict by case for each."""
    spawn = multiprocessing.get_context("spawn")
    both = [
        spawn.Process(target=process, args=(rank, folder, cases, refused, device), daemon=True)
        for rank in range(2)
    ]
    try:
        for each in both:
            each.start()
        end = time.monotonic() + seconds
        # Where one has failed, the other would wait for it.
        while {None, 0} >= (codes := {each.exitcode for each in both}) and None in codes:
            assert time.monotonic() < end, f"not done after {seconds} seconds"
            both[0].join(timeout=0.05)
            both[1].join(timeout=0.05)
        assert [each.exitcode for each in both] == [0, 0], "see what they printed"
    finally:
        for each in both:
            if each.pid is not None:
                each.kill()
                each.join()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return two_processes(tmp_path_factory.mktemp("ranks"), CASES, REFUSED)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_are_one(case, ranks):
    same(case, [found[str(case)] for found in ranks], outcome(case))


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_static_graph_is_refused(case, ranks):
    for found in ranks:
        assert "static_graph=False" in found[str(case)]


# Parts of a batch ----------------------------------------------------------------------------


def batch(name, n=12, classes=3):
    """A network with fresh weights, inputs, and labels for a third of them."""
    torch.manual_seed(0)
    model, shape = NETWORKS[name]()
    i = torch.arange(n)
    return model, torch.randn(n, *shape), torch.where(i % 3 == 0, i // 3 % classes, -1)


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("network", ["dense", "images", "bird10"])
def test_training_on_parts_is_training_on_the_whole(network, objective):
    """Four unequal parts, one without labels and one with nothing else, three steps of Adam."""
    trained = []
    for sizes in ([12], [5, 1, 4, 2]):
        model, x, _ = batch(network)
        y = torch.tensor([0, -1, -1, 2, -1, 1, -1, -1, -1, -1, 2, 2])
        model, x = model.double(), x.double()
        ours = OBJECTIVES[objective]("")
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            totals = []
            for part, labels in zip(x.split(sizes), y.split(sizes), strict=True):
                totals.append(ours(model, part, labels, whole=y).total)
                totals[-1].backward()
            optimiser.step()
        trained.append([sum(totals).item(), *(p.detach() for p in model.parameters())])
    assert trained[0][0] == pytest.approx(trained[1][0], abs=1e-10)
    for a, b in zip(trained[0][1:], trained[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", BALANCED)
def test_a_balance_sees_one_part_at_a_time_and_the_parts_weigh_what_they_hold(objective):
    """The value of a part is its share of the unlabelled samples times what it alone would give."""
    model, x, y = batch("dense")
    ours, alone, plain = (BALANCED[objective]("") for _ in range(3))
    kappa, plain.balance = ours.balance.kappa, None
    for part, labels in zip(x.split([2, 6, 4]), y.split([2, 6, 4]), strict=True):
        terms = ours(model, part, labels, whole=y)
        share = (labels == -1).sum() / (y == -1).sum()
        expected = plain(model, part, labels, whole=y).total
        expected = expected + kappa * share * alone(model, part, labels).balance
        torch.testing.assert_close(terms.total, expected)


def test_a_part_without_unlabelled_samples_leaves_the_average_of_a_balance_as_it_is():
    model, x, y = batch("dense")
    objective = ParameterFreeObjective("global", balance=Balance(memory=0.5))
    objective(model, x, y)
    before = objective.balance.state_dict()["average"].clone()
    objective(model, x[:1], y[:1], whole=y)
    torch.testing.assert_close(objective.balance.state_dict()["average"], before)


# Checkpoints, offloading, inference mode -----------------------------------------------------

WHERE = [("first",), ("middle",), ("head",), ("first", "middle", "head"), ("all",)]
WHERE += [("all", "middle")]
LEVELS = {
    "input": partial(ParameterFreeObjective, "global"),
    "layers": partial(ParameterFreeObjective, "multiscale"),
    "within": partial(ParameterFreeObjective, "multiscale", layers=["first.0", "head.0"]),
    "cosine": partial(ParameterFreeObjective, "multiscale", distance="cosine"),
}


def of_stages(levels, *checkpointed, whole_step=nullcontext, device="cpu", **sizes):
    """The total, its gradients and the next random number; float64, training mode, one seed."""
    torch.manual_seed(0)
    model = Stages(*checkpointed, **sizes).double().to(device)
    x, y = torch.randn(4, 1, 16, dtype=torch.float64), torch.tensor([0, 2, -1, -1])
    with whole_step():
        total = LEVELS[levels]()(model, x.to(device), y.to(device)).total
        total.backward()
    return torch.cat([total.detach()[None], gradient(model), torch.rand(1, device=device)])


plain_attention = partial(sdpa_kernel, SDPBackend.MATH)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["convolution", "linear", "attention"])
@pytest.mark.parametrize("where", WHERE, ids="+".join)
@pytest.mark.parametrize("levels", LEVELS)
def test_checkpointed_is_not_checkpointed(levels, where, kind, dropout):
    """Also the random numbers drawn: each block is computed again with those it had."""
    sizes = {"linear": kind == "linear", "attention": kind == "attention", "dropout": dropout}
    expected = of_stages(levels, **sizes)
    # Attention is computed again in the caller's backward pass, where any kernel might be chosen.
    step = plain_attention if kind == "attention" else nullcontext
    torch.testing.assert_close(
        of_stages(levels, *where, whole_step=step, **sizes), expected, rtol=0, atol=1e-10
    )


def test_checkpointed_attention_without_its_plain_kernel_is_an_error():
    with pytest.raises(CheckpointError, match="Recomputed values"):
        of_stages("input", "middle", attention=True)


@pytest.mark.parametrize("where", [("first",), ("middle",), ("all",)], ids="+".join)
@pytest.mark.parametrize("levels", LEVELS)
def test_reentrant_checkpoints_are_refused(levels, where):
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        of_stages(levels, *where, use_reentrant=True)


def kept_as_arrays():
    return saved_tensors_hooks(lambda z: z.detach().numpy().copy(), torch.from_numpy)


@pytest.mark.parametrize("packed", [save_on_cpu, kept_as_arrays])
@pytest.mark.parametrize("objective", EVERY)
@pytest.mark.parametrize("network", ["images", "bird10"])
def test_saved_tensors_may_be_kept_elsewhere(network, objective, packed):
    found = []
    for around in (nullcontext, packed):
        model, x, y = batch(network)
        model, x = model.double(), x.double()
        with around():
            total = EVERY[objective]("")(model, x, y).total
        total.backward()
        found.append(torch.cat([total.detach()[None], gradient(model)]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("objective", sorted(EVERY.keys() - {"supervised"}))
def test_inference_mode_is_refused(objective):
    model, x, y = batch("dense")
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch.no_grad\(\)"):
        EVERY[objective]("")(model, x, y)


# Random numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["bird10", "dropout", "attention", "checkpointed"])
def test_an_objective_draws_the_random_numbers_of_one_forward_pass(name, exact):
    torch.manual_seed(0)
    x, y = torch.randn(6, 1, 16), torch.tensor([0, -1, 2, -1, -1, -1])
    if name == "bird10":
        model, shape = bird10()
        x = torch.randn(6, *shape)
    elif name == "checkpointed":
        model = Stages("all", dropout=0.5)
    else:
        model = Stages(attention=name == "attention", dropout=0.5)
    model.train()
    objective = WeightedObjective(0.5, 0.5, exact=exact)
    ends, totals = [], []
    for call in (model, *[lambda z: objective(model, z, y).total] * 2):
        torch.manual_seed(1)
        totals.append(call(x))
        ends.append(torch.get_rng_state())
    assert torch.equal(totals[1], totals[2])
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
    torch.manual_seed(2)
    assert objective(model, x, y).total != totals[1]  # there is something random


# Half precision ------------------------------------------------------------------------------

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def half_or_skip(network, half):
    """The type, where torch has it for this network on this processor."""
    model, x, _ = batch(network)
    try:
        with torch.autocast("cpu", HALVES[half]):
            model(x).float().square().sum().backward()
    except RuntimeError as error:
        pytest.skip(f"no {half} here: {error}")
    return HALVES[half]


def learned(name, device="cpu"):
    """A network that has begun to learn: with fresh weights there is next to no reconstruction."""
    model, x, y = batch(name, n=24)
    model, x, y = model.to(device), x.to(device), y.to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(15):
        optimiser.zero_grad()
        WeightedObjective(0.7, 0.6)(model, x, y).total.backward()
        optimiser.step()
    return model, x, y


def step(model, x, y, objective):
    model.zero_grad()
    terms = objective(model, x, y)
    terms.total.backward()
    return terms, gradient(model)


def in_half(model, x, y, objective, half, inside):
    """The same under autocast, the backward pass inside it or after it."""
    model.zero_grad()
    with torch.autocast(x.device.type, half):
        terms = objective(model, x, y)
        if inside:
            terms.total.backward()
    if not inside:
        terms.total.backward()
    return terms, gradient(model)


def close(got, expected):
    """Whether terms and gradients in half precision are near those in full."""
    (terms, gradients), (full, directions) = got, expected
    assert terms.total.dtype == torch.float32 and terms.total.isfinite()
    values, others = terms.levels, full.levels
    for name in TERMS[1:]:
        values, others = values | {name: getattr(terms, name)}, others | {name: getattr(full, name)}
    for name, value in others.items():
        if value is not None:
            assert float(values[name]) == pytest.approx(float(value), rel=2e-2), name
    total = pytest.approx(float(full.total.detach()), rel=2e-2, abs=2e-2)
    assert float(terms.total.detach()) == total
    assert torch.cosine_similarity(gradients.float(), directions, dim=0) > 0.99
    assert float(gradients.float().norm() / directions.norm()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("network", ["images", "bird10", "transformer", "lstm"])
def test_autocast_is_near_float32_and_leaves_the_model_as_it_was(network, half):
    half = half_or_skip(network, half)
    model, x, y = learned(network)
    for make in EVERY.values():
        expected = step(model, x, y, make(""))
        for inside in (False, True):
            close(in_half(model, x, y, make(""), half, inside), expected)
            assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
        assert torch.equal(step(model, x, y, make(""))[1], expected[1])


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("network", ["images", "bird10", "transformer"])
def test_a_network_in_half_precision_is_near_the_same_in_float32(network, half):
    half = half_or_skip(network, half)
    model, x, y = learned(network)
    expected = {name: step(model, x, y, make("")) for name, make in EVERY.items()}
    model, x = model.to(half), x.to(half)
    for name, full in expected.items():
        close(step(model, x, y, EVERY[name]("")), full)


# GPU -----------------------------------------------------------------------------------------


def of_batch(network, objective, device):
    """Terms of two batches and the gradients of their sum, float64."""
    model, x, y = batch(network)
    model, x, y = model.double().to(device), x.double().to(device), y.to(device)
    ours = EVERY[objective]("")
    found = [ours(model, *each) for each in ((x[:8], y[:8]), (x[8:], y[8:]))]
    sum(terms.total for terms in found).backward()
    values = [getattr(terms, name) for terms in found for name in TERMS]
    values += [level for terms in found for level in terms.levels.values()]
    values = [value.detach().reshape(1) for value in values if value is not None]
    counts = [terms.histogram.double() for terms in found]
    return torch.cat([*values, *counts, gradient(model)]).cpu()


@GPU
@pytest.mark.parametrize("objective", EVERY)
@pytest.mark.parametrize("network", ["dense", "images", "bird10", "transformer"])
def test_a_gpu_gives_what_a_cpu_gives(network, objective):
    ours, theirs = (of_batch(network, objective, device) for device in ("cuda", "cpu"))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@GPU
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("network", ["images", "bird10", "transformer"])
def test_autocast_on_a_gpu_is_near_float32(network, half):
    model, x, y = learned(network, "cuda")
    for make in EVERY.values():
        expected = step(model, x, y, make(""))
        for inside in (False, True):
            close(in_half(model, x, y, make(""), HALVES[half], inside), expected)


@GPU
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_of_cudnn_are_refused_and_their_plain_form_is_not(kind):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, x = Last(kind).double(), torch.randn(4, 5, 6, dtype=torch.float64)
        model, x, y = model.to(device), x.to(device), torch.tensor([0, 2, -1, -1], device=device)
        if device == "cuda":
            with pytest.raises(RuntimeError, match=r"second backward pass.*cudnn\.flags"):
                WeightedObjective(0.5, 0.5)(model, x, y)
        with torch.backends.cudnn.flags(enabled=False):
            WeightedObjective(0.5, 0.5)(model, x, y).total.backward()
        found.append(gradient(model).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-9)


@GPU
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("where", WHERE, ids="+".join)
def test_checkpointed_on_a_gpu_is_not_checkpointed(where, attention):
    sizes = {"attention": attention, "dropout": 0.3, "device": "cuda"}
    sizes["whole_step"] = plain_attention if attention else nullcontext
    expected = of_stages("layers", **sizes)
    torch.testing.assert_close(of_stages("layers", *where, **sizes), expected, rtol=0, atol=1e-9)


@GPU
def test_two_processes_on_a_gpu_are_one(tmp_path):
    cases = [
        Case(network, objective, labels)
        for network in ("images", "bird10")
        for objective in ("inv10", "multiscale", "memory")
        for labels in ("unevenly", "apart")
    ]
    found = two_processes(tmp_path, cases, device="cuda")
    for case in cases:
        same(case, [each[str(case)] for each in found], outcome(case, device="cuda"))
