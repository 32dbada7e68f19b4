"""The losses written from their equations alone: slow, one sample at a time, explicit Jacobians.

Nothing of `birdinv` is used. A network is a list of stages; `z^(0) = x`, `z^(l)` the output of
stage l, the last one the logits. Dropout and batch statistics are none of its business.
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


def error(stages, x, level):
    """`R^(l) = ‖ẑ^(l) − z^(l)‖²` and `D^(l)`."""
    z_hat, z = reconstruction(stages, x, level)
    return ((z_hat - z) ** 2).sum(), z.numel()


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
    each = []
    for a, c in zip(x, y.tolist(), strict=True):
        if c == -1:
            p = probabilities(stages, a)
            each.append(-sum(q * torch.log(q) for q in p))
    return sum(each) / len(each) if each else torch.zeros((), dtype=x.dtype)


def weighted(stages, x, y, *, alpha, beta, reduction="mean"):
    """INV 10."""
    total = 0
    for a in x:
        r, d = error(stages, a, 0)
        total = total + (r / d if reduction == "mean" else r)
    rebuilt = total / len(x)
    ce, e = mean_cross_entropy(stages, x, y), mean_entropy(stages, x, y)
    return alpha * ce + (1 - alpha) * (beta * rebuilt + (1 - beta) * e)


def parameter_free(stages, x, y, *, scale):
    """MS 6 with MS 9 (global) or MS 10 (multiscale)."""
    classes = outputs(stages, x[0])[-1].shape[1]
    levels = [0] if scale == "global" else range(len(stages))
    total = 0
    for a in x:
        pairs = [error(stages, a, level) for level in levels]
        total = total + sum(r / d for r, d in pairs) / len(pairs)
    both = mean_cross_entropy(stages, x, y) + mean_entropy(stages, x, y)
    return both / math.log(classes) + total / len(x)
