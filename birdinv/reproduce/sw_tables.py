"""The tables and figures of SW, a command each, and SWWAE beside inversion on birds."""

from __future__ import annotations

from birdinv.reproduce.sw_rows import (
    CIFAR,
    CONVNET,
    DROPOUT,
    STL10,
    SVHN,
    birds,
    capsules,
    figure2,
    net,
    table4,
    table5,
)
from birdinv.reproduce.table import Row, Table

_STEPS = {"smoke": 10, "cpu": 600, "paper": 100_000}
_FEWER = {"smoke": 10, "cpu": 300, "paper": 100_000}
_MNIST_WEIGHTS = "weights of 10 and 10, chosen on a draw of labels that is not measured"


SW_TABLES = (
    Table(
        "sw-figure2",
        "What is left of a digit: unpooling with where, and upsampling without",
        "SW fig. 2",
        "reconstruction",
        "mnist",
        ("sw",),
        {},
        {},
        figure2(),
        steps=_FEWER,
    ),
    Table(
        "sw-figure3",
        "Digits moved by 3 pixels: their what and where, and their reconstructions",
        "SW figs. 3 and 4",
        "reconstruction",
        "mnist",
        ("sw",),
        {},
        {},
        (capsules(),),
        steps=_STEPS,
    ),
    Table(
        "sw-table1",
        "SVHN with 1000 labels, and with all",
        "SW table 1",
        "error",
        "svhn",
        ("sw",),
        {},
        {},
        (
            Row("convnet", net(SVHN, CONVNET), {1000: None, None: 94.11}),
            Row(
                "swwae",
                net(SVHN, {"lambda_rec": 0.8, "lambda_mid": 0.8}),
                {1000: 72.17, None: 95.06},
            ),
            Row(
                "swwae-dropout",
                net(SVHN, {"lambda_rec": 0.4, "lambda_mid": 0.4}, DROPOUT),
                {1000: 76.44},
            ),
        ),
        {"svhn_small": (100,)},
        _FEWER,
    ),
    Table(
        "sw-table2",
        "STL-10 with 1000 labels",
        "SW table 2",
        "accuracy",
        "stl10",
        ("sw",),
        {},
        {},
        (
            Row("convnet", net(STL10, CONVNET, batch_norm=True), {1000: 57.45}),
            Row("swwae", net(STL10, batch_norm=True), {1000: 74.33}),
        ),
        steps=_FEWER,
        deviations=(
            "draws of 1000 labels of our own, in place of the ten official folds",
            "the weights of SW table 3, of which it states none for STL-10",
        ),
    ),
    Table(
        "sw-table3",
        "CIFAR-10 and CIFAR-100 with every label",
        "SW table 3",
        "accuracy",
        "cifar10",
        ("sw",),
        {},
        {},
        (
            Row(
                "convnet",
                net(CIFAR, CONVNET, batch_norm=True),
                {None: 91.33},
                elsewhere={"cifar100": {None: 67.50}},
            ),
            Row(
                "swwae",
                net(CIFAR, batch_norm=True),
                {None: 92.23},
                elsewhere={"cifar100": {None: 69.12}},
            ),
        ),
        {"cifar100": (None,)},
        steps=_FEWER,
        deviations=(
            "no unlabelled images, where SW has the 80 Million Tiny Images, which were withdrawn",
            "no contrast normalisation, no moved or mirrored images",
        ),
    ),
    Table(
        "sw-table4",
        "MNIST: SWWAE and other regularisers, dropout at the fully connected layer",
        "SW table 4",
        "error",
        "mnist",
        ("sw",),
        {},
        {},
        table4(),
        steps=_STEPS,
        deviations=(
            _MNIST_WEIGHTS,
            "of which SW states none: L1 with 0.01, half of the numbers dropped on convolutions, "
            "half of the steps for pretraining; noL2M with the same weight of the input",
            "regularisers in place of the decoder",
        ),
        compared="valid",
    ),
    Table(
        "sw-table5",
        "MNIST with few labels: SWWAE, and inversion on the same draws and steps",
        "SW table 5",
        "error",
        "mnist",
        ("sw",),
        {},
        {},
        table5(),
        steps=_STEPS,
        deviations=(_MNIST_WEIGHTS,),
    ),
    Table(
        "sw-birds",
        "Birds: SWWAE beside supervised training and inversion",
        "in no paper",
        "accuracy",
        "bird_kenya6",
        ("by-recording",),
        {},
        {},
        birds(),
        deviations=(
            "SWWAE with the weights of SW table 3 and no dropout; bird10 with that of INV A.2, 0.5",
        ),
        steps={"smoke": 10, "cpu": 1000, "paper": 10_000},
    ),
)
