"""The pictures of docs/losses.md: inputs, and what networks rebuild of them, untrained and trained.

    python docs/pictures/losses.py

Songs are made by birdinv's generator, the digits come with scikit-learn. Prints the reconstruction
errors and accuracies that the captions quote: `R/D` is `‖A[x]ᵀf(x) − x‖² / D`, the mean over the
segments or images named, beside the mean of `x²`, which is what a network that rebuilds nothing
scores. One thread and one seed, under two minutes; another machine may differ in the last digits.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import stft
from sklearn.datasets import load_digits
from torch import Tensor, nn

import birdinv
from birdinv.data.synthetic import recording
from birdinv.networks.layers import normalise

HERE = Path(__file__).parent
SEED = 0
SINGERS = ("cuckoo", "whistler", "triller")
RATE_HZ, SEGMENT, HOP = 22050, 11025, 1102  # half a second, 90 % overlap
BLUE, GREY = "#0072B2", "#9a9a9a"


def train(
    model: nn.Module,
    objective: birdinv.WeightedObjective | birdinv.ParameterFreeObjective,
    labelled: tuple[Tensor, Tensor],
    unlabelled: Tensor,
    *,
    steps: int,
    half: int,
) -> None:
    """Adam with one cycle of its rate, up to 0.005; half of every batch is labelled."""
    torch.manual_seed(SEED)
    optimiser = torch.optim.Adam(model.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.005, total_steps=steps, pct_start=0.1)
    x, y = labelled
    no_label = torch.full((half,), birdinv.UNLABELED)
    for _ in range(steps):
        i, j = torch.randint(len(x), (half,)), torch.randint(len(unlabelled), (half,))
        terms = objective(model, torch.cat([x[i], unlabelled[j]]), torch.cat([y[i], no_label]))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        rate.step()


def errors(model: nn.Module, x: Tensor) -> Tensor:
    """`R/D` of each sample."""
    with torch.no_grad():
        return birdinv.energy(model, x)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


# Songs ---------------------------------------------------------------------------------------


def segments(numbers: range) -> tuple[Tensor, Tensor]:
    """Normalised segments, and their classes, of one recording a species for each number."""
    found, classes = [], []
    for c, species in enumerate(SINGERS):
        for number in numbers:
            sound = recording([species], np.random.default_rng([SEED, c, number]), seconds=5)
            windows = np.lib.stride_tricks.sliding_window_view(sound, SEGMENT)[::HOP]
            energy = np.square(windows).mean(1)
            windows = windows[energy > 0.2 * np.quantile(energy, 0.95)]  # somebody sings
            found.append(torch.tensor(windows)[:, None])
            classes += [c] * len(windows)
    return normalise(torch.cat(found)), torch.tensor(classes)


def songs() -> None:
    x, y = segments(range(1))
    unlabelled, sung_by = segments(range(1, 3))
    strangers, their_class = segments(range(10, 14))
    torch.manual_seed(SEED)
    # What 42 filters span shows little; no dropout: the picture is of one network, not of many.
    model = birdinv.networks.build("bird10", classes=3, shape=(1, SEGMENT), width=128, dropout=0.0)
    print(f"songs: {len(x)} labelled and {len(unlabelled)} unlabelled segments, 64 + 64 a batch")
    untrained = report(model, unlabelled, strangers, their_class)
    before = birdinv.invert(model, unlabelled).detach()
    objective = birdinv.WeightedObjective(0.7, 0.3, reduction="sum", balance=1.0)
    train(model, objective, (x, y), unlabelled, steps=400, half=64)
    trained = report(model, unlabelled, strangers, their_class)
    after = birdinv.invert(model, unlabelled).detach()
    left = trained / unlabelled.square().flatten(1).mean(1)
    for c, species in enumerate(SINGERS):
        print(f"  {species}: median share of x² left over {left[sung_by == c].median():.2f}")
    shown = []
    for c in (0, 1):  # of each of two species the segment whose share left over is the median
        own = (sung_by == c).nonzero()[:, 0]
        i = int(own[left[own].argsort()[len(own) // 2]])
        sounds = [each[i, 0].numpy() for each in (unlabelled, before, after)]
        numbers = [float(each[i]) for each in (untrained, trained)]
        shown.append((SINGERS[c], sounds, numbers))
        print(f"  {SINGERS[c]} shown: R/D {numbers[0]:.4f} before, {numbers[1]:.4f} after")
        print(f"    peak of the reconstruction before: {np.abs(sounds[1]).max():.4f}")
    save(song_figure(shown), "losses-songs.png")


def report(model: nn.Module, unlabelled: Tensor, strangers: Tensor, classes: Tensor) -> Tensor:
    """Prints errors and accuracy; gives `R/D` of the unlabelled segments."""
    own = errors(model, unlabelled)
    right = accuracy(model, strangers, classes)
    print(
        f"  R/D {own.mean():.4f} of the unlabelled (mean x² {unlabelled.square().mean():.4f}), "
        f"{errors(model, strangers).mean():.4f} of {len(strangers)} of other singers (mean x² "
        f"{strangers.square().mean():.4f}), accuracy there {right:.3f}"
    )
    return own


def song_figure(
    shown: list[tuple[str, list[NDArray[np.float32]], list[float]]],
) -> Figure:
    """For each song 12 ms of the waveforms and the spectrograms, on one scale in a row."""
    figure = Figure(figsize=(8, 2.9 * len(shown) + 0.2), layout="constrained")
    axes = figure.subplots(2 * len(shown), 3, height_ratios=[1, 1.25] * len(shown), sharey="row")
    window_s = 0.012
    for row, (species, sounds, numbers) in enumerate(shown):
        titles = [
            f"{species}: original",
            f"untrained: R/D = {numbers[0]:.3f}",
            f"trained: R/D = {numbers[1]:.3f}",
        ]
        loud = np.convolve(np.square(sounds[0]), np.ones(int(window_s * RATE_HZ)), "valid")
        first = int(loud.argmax())
        time_s = np.arange(SEGMENT) / RATE_HZ
        part = slice(first, first + int(window_s * RATE_HZ))
        for column, (title, sound) in enumerate(zip(titles, sounds, strict=True)):
            wave, picture = axes[2 * row : 2 * row + 2, column]
            wave.set_title(title, fontsize=11, loc="left")
            if column:
                wave.plot(1000 * time_s[part], sounds[0][part], color=GREY, lw=0.8)
            wave.plot(1000 * time_s[part], sound[part], color=BLUE, lw=1)
            wave.set(ylim=(-1.1, 1.1), xlim=tuple(1000 * time_s[part][[0, -1]]))
            wave.set_xlabel("time (ms)")
            f_hz, t_s, z = stft(sound, RATE_HZ, nperseg=512, noverlap=384)
            db = 20 * np.log10(np.abs(z) + 1e-7)
            mesh = picture.imshow(
                db, origin="lower", aspect="auto", cmap="Greys", vmin=-50, vmax=-10,
                extent=(0, t_s[-1], 0, f_hz[-1] / 1000), interpolation="bilinear",
            )  # fmt: skip
            picture.set(ylim=(0, 8), xlim=(0, 0.5), xlabel="time (s)", yticks=range(0, 9, 2))
        axes[2 * row, 0].set_ylabel("amplitude")
        axes[2 * row + 1, 0].set_ylabel("frequency (kHz)")
        figure.colorbar(mesh, ax=axes[2 * row + 1, :], label="level (dB)", pad=0.01, aspect=12)
    return figure


# Digits --------------------------------------------------------------------------------------


def small_cnn() -> nn.Sequential:
    """The same weights at every call."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.LeakyReLU(0.01)),
        nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.LeakyReLU(0.01)),
        nn.Sequential(nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.LeakyReLU(0.01)),
        nn.Linear(64, 10),
    )


def digits() -> None:
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(SEED))
    x = normalise(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8))[order]
    y = torch.tensor(labels)[order]
    x, others, y, answers = x[:1300], x[1300:], y[:1300], y[1300:]
    few = torch.cat([(y == c).nonzero()[:5, 0] for c in range(10)])
    one_of_each = torch.stack([(answers == c).nonzero()[0, 0] for c in range(10)])
    print(f"digits: {len(few)} labels, {len(x)} unlabelled images, 32 + 32 a batch, 800 steps;")
    print(f"  {len(others)} other images, mean x² {others.square().mean():.4f}")
    objectives = {
        "untrained": None,
        "cross-entropy alone": birdinv.WeightedObjective(1.0, 0.0),
        "weighted (0.7, 0.3)": birdinv.WeightedObjective(0.7, 0.3),
        "multiscale": birdinv.ParameterFreeObjective("multiscale", layers=["0", "1", "2"]),
        "weighted, sum": birdinv.WeightedObjective(0.7, 0.3, reduction="sum"),
    }
    rows = [("original", others[one_of_each])]
    for name, objective in objectives.items():
        model = small_cnn()
        if objective is not None:
            train(model, objective, (x[few], y[few]), x, steps=800, half=32)
        rebuilt, right = errors(model, others).mean(), accuracy(model, others, answers)
        print(f"  {name}: R/D {rebuilt:.4f}, accuracy {right:.3f}")
        number = f"{rebuilt:.0f}" if rebuilt > 100 else f"{rebuilt:.2f}"
        text = f"{name}\nR/D = {number}" + (f", {100 * right:.0f} %" if objective else "")
        rows.append((text, birdinv.invert(model, others[one_of_each]).detach()))
    save(digit_figure(rows), "losses-digits.png")


def digit_figure(rows: list[tuple[str, Tensor]]) -> Figure:
    """A row of images for each name; white is 0, the ends of the scale are ±1."""
    figure = Figure(figsize=(8, 0.64 * len(rows) + 0.15), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), len(rows[0][1]))
    for row, (name, images) in zip(axes, rows, strict=True):
        for axis, image in zip(row, images, strict=True):
            mesh = axis.imshow(image[0], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("#cccccc")
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    figure.colorbar(mesh, ax=axes, label="pixel (normalised)", pad=0.01, aspect=30, extend="both")
    return figure


def save(figure: Figure, name: str) -> None:
    """As a PNG of 100 colours: a third of the size, and no eye sees the difference."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, facecolor="white")
    picture = Image.open(drawn).convert("RGB").quantize(100, dither=Image.Dither.NONE)
    picture.save(HERE / name, optimize=True)
    print(f"  {name}: {(HERE / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    songs()
    digits()
