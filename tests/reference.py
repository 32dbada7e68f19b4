"""The losses written from their equations alone: slow, one sample at a time, explicit Jacobians.

Nothing of `birdinv` is used. A network is a list of stages; `z^(0) = x`, `z^(l)` the output of
stage l, the last one the logits. Dropout and batch statistics are none of its business.

A distance is "squared", "cosine" or a function of one sample's `(ẑ, z)`, without a batch axis, to a
scalar; only the squared one is divided by `D^(l)`, where the reduction is the mean. `kappa` and
`prior` are those of the balance.
"""

import math

import torch


def outputs(stages, x):
    """`z^(0) … z^(L)` of one sample `[C, *S]`, each with its batch axis of one."""
    z = [x[None]]
    for stage in stages:
        z.append(stage(z[-1]))
    return z


def reconstruction(stages, x, level):
    """`(ẑ^(l), z^(l))`, `ẑ^(l) = (dz^(L)/dz^(l))ᵀ z^(L)` with the Jacobian written out."""
    z = outputs(stages, x)

    def rest(point):
        for stage in stages[level:]:
            point = stage(point)
        return point[0]

    jacobian = torch.autograd.functional.jacobian(rest, z[level], create_graph=True)
    logits = z[-1][0]
    return torch.einsum("k,k...->...", logits, jacobian), z[level]


def error(stages, x, level, distance="squared", reduction="mean"):
    """`R^(l)` of one sample, `/ D^(l)` where the reduction is the mean."""
    z_hat, z = (point[0] for point in reconstruction(stages, x, level))
    if distance == "squared":
        r = ((z_hat - z) ** 2).sum()
        return r / z.numel() if reduction == "mean" else r
    if distance == "cosine":
        return 1 - (z_hat * z).sum() / ((z_hat**2).sum() * (z**2).sum()) ** 0.5
    return distance(z_hat, z)


def mean_error(stages, x, level, distance="squared", reduction="mean"):
    return sum(error(stages, a, level, distance, reduction) for a in x) / len(x)


def probabilities(stages, x):
    logits = outputs(stages, x)[-1][0]
    powers = torch.exp(logits - logits.max())
    return powers / powers.sum()


def mean_cross_entropy(stages, x, y):
    each = [
        -torch.log(probabilities(stages, a)[c])
        for a, c in zip(x, y.tolist(), strict=True)
        if c != -1
    ]
    return sum(each) / len(each) if each else torch.zeros((), dtype=x.dtype)


def mean_entropy(stages, x, y):
    """Over the unlabelled samples; over all of them without `y`."""
    each = []
    for a, c in zip(x, [-1] * len(x) if y is None else y.tolist(), strict=True):
        if c == -1:
            p = probabilities(stages, a)
            each.append(-sum(q * torch.log(q) for q in p))
    return sum(each) / len(each) if each else torch.zeros((), dtype=x.dtype)


def imbalance(stages, x, y, prior=None):
    """`−H(ȳ)`, or `KL(prior ‖ ȳ)`, `ȳ` the mean prediction for the unlabelled samples (§4.6)."""
    each = [probabilities(stages, a) for a, c in zip(x, y.tolist(), strict=True) if c == -1]
    if not each:
        return torch.zeros((), dtype=x.dtype)
    mean = sum(each) / len(each)
    if prior is None:
        return sum(q * torch.log(q) for q in mean)
    return sum(p * torch.log(p / q) for p, q in zip(prior, mean, strict=True) if p > 0)


def weighted(
    stages,
    x,
    y,
    *,
    alpha,
    beta,
    variant="inv10",
    reduction="mean",
    distance="squared",
    kappa=0.0,
    prior=None,
):
    """INV 10, SPL 82 or MS 5."""
    ce = mean_cross_entropy(stages, x, y)
    rebuilt = mean_error(stages, x, 0, distance, reduction)
    if variant == "inv10":
        total = alpha * ce + (1 - alpha) * (
            beta * rebuilt + (1 - beta) * mean_entropy(stages, x, y)
        )
    elif variant == "spl82":
        e = mean_entropy(stages, x, None)
        total = alpha * ce + (1 - alpha) * (beta * rebuilt + (1 - beta) * e)
    elif variant == "ms5":
        e = mean_entropy(stages, x, y)
        total = alpha * ce + (1 - alpha) * beta * e + (1 - alpha) * (1 - beta) * rebuilt
    return total + kappa * imbalance(stages, x, y, prior)


def parameter_free(stages, x, y, *, scale, distance="squared", kappa=0.0, prior=None):
    """MS 6 with MS 9 (global) or MS 10 (multiscale)."""
    classes = outputs(stages, x[0])[-1].shape[1]
    levels = [0] if scale == "global" else range(len(stages))
    rebuilt = sum(mean_error(stages, x, level, distance) for level in levels) / len(levels)
    both = mean_cross_entropy(stages, x, y) + mean_entropy(stages, x, y)
    return both / math.log(classes) + rebuilt + kappa * imbalance(stages, x, y, prior)


def layer_weighted(
    stages,
    x,
    y,
    *,
    alpha,
    beta,
    gamma,
    reduction="mean",
    distance="squared",
    kappa=0.0,
    prior=None,
):
    """INV 11, SPL 83: `gamma[l]` weighs `R^(l)`; the entropy is that of all samples."""
    total = alpha * mean_cross_entropy(stages, x, y) + beta * mean_entropy(stages, x, None)
    for level, weight in enumerate(gamma):
        total = total + weight * mean_error(stages, x, level, distance, reduction)
    return total + kappa * imbalance(stages, x, y, prior)
