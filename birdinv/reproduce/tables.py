"""The tables of the papers: their rows, the settings of each and the published numbers.

Numbers: INV table 2 and fig. 2, MS tables 2 and 3, and in `sw_tables` those of SW. Rows of those
tables that are other authors' methods are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from birdinv.reproduce import bird_rows
from birdinv.reproduce.bird_choices import WAYS
from birdinv.reproduce.sw_tables import SW_TABLES
from birdinv.reproduce.table import Row, Table

POOLINGS = ("mean", "max", "inhibitor")
# 50 labels: accuracy, alpha, beta; then 1000 labels, supervised only.
_INV2 = {
    ("smallcnn", "mean"): (99.07, 0.7, 0.2, 94.9),
    ("smallcnn", "max"): (98.63, 0.7, 0.2, 95.0),
    ("smallcnn", "inhibitor"): (98.85, 0.5, 0.2, 96.0),
    ("largecnn", "mean"): (98.63, 0.6, 0.5, 94.7),
    ("largecnn", "max"): (98.79, 0.7, 0.5, 94.8),
    ("largecnn", "inhibitor"): (98.23, 0.5, 0.5, 96.1),
    ("resnet2-32", "mean"): (99.11, 0.7, 0.2, 95.5),
    ("resnet2-32", "max"): (99.14, 0.7, 0.2, 94.9),
    ("resnet2-32", "inhibitor"): (98.84, 0.7, 0.2, 95.6),
    ("resnet3-16", "mean"): (98.67, 0.7, 0.2, 95.4),
    ("resnet3-16", "max"): (98.56, 0.5, 0.5, 94.8),
    ("resnet3-16", "inhibitor"): (98.70, 0.7, 0.2, 95.5),
}
# What fits on two cores: a step of LargeCNN costs some 13 of SmallCNN.
_CPU_EPOCHS = {
    "smallcnn": 0.4,
    "smallcnn-mean": 1.0,  # the one to go furthest with
    "largecnn": 0.02,
    "resnet2-32": 0.2,
    "resnet3-16": 0.2,
}
_CPU_CHECKS = {"largecnn": 1, "resnet2-32": 5, "resnet3-16": 5}


def _inv2_rows() -> tuple[Row, ...]:
    rows, supervised = [], []
    for (network, pooling), (accuracy, alpha, beta, sup1000) in _INV2.items():
        settings = {
            "network": network,
            "options": {"pooling": pooling},
            "objective": "weighted",
            "alpha": alpha,
            "beta": beta,
            "learning_rate": 0.01 if network == "smallcnn" else 0.01 / 3,  # INV A.1
        }
        checks = {"cpu": _CPU_CHECKS[network]} if network in _CPU_CHECKS else {}
        name = f"{network}-{pooling}"
        epochs = {"cpu": _CPU_EPOCHS.get(name, _CPU_EPOCHS[network])}
        rows.append(Row(name, settings, {50: accuracy}, epochs=epochs, checks=checks))
        supervised.append(
            Row(
                f"{name}-supervised",
                settings,
                {1000: sup1000},
                preset="inv-supervised",
                epochs=epochs,
                checks=checks,
            )
        )
    return (*rows, *supervised)


_INV_FIGURE2 = {
    (1.0, 0.0): 50.23,
    (0.7, 0.5): 51.76,
    (0.7, 0.4): 54.23,
    (0.7, 0.3): 54.65,
    (0.7, 0.2): 53.17,
    (0.7, 0.1): 52.90,
    (0.6, 0.5): 53.51,
    (0.6, 0.4): 51.12,
    (0.6, 0.3): 50.85,
    (0.6, 0.2): 53.45,
}


def _inv_figure2_rows() -> tuple[Row, ...]:
    return tuple(
        Row(
            f"alpha{alpha:g}-beta{beta:g}",
            {"network": "bird10", "objective": "weighted", "alpha": alpha, "beta": beta},
            {None: accuracy},
        )
        for (alpha, beta), accuracy in _INV_FIGURE2.items()
    )


_MS_NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"network": "mscnn", "options": {}},
    "deep-resnet": {
        "network": "resnet6-32",
        "options": {"batch_norm": True, "dropout": 0.2},
    },
    "wide-resnet": {
        "network": "resnet3-64",
        "options": {"batch_norm": True, "dropout": 0.2},
    },
}
_MS_OBJECTIVES = {"lambda": "multiscale", "gamma": "global"}  # λ and Γ


def _ms_row(name: str, errors: dict[int | None, float], std: dict[int | None, float]) -> Row:
    network, _, objective = name.rpartition("-")
    sigmoid = network.startswith("sigmoid-")
    own = _MS_NETWORKS[network.removeprefix("sigmoid-")]
    options = {**own["options"], **({"activation": "sigmoid"} if sigmoid else {})}
    return Row(
        name,
        {"network": own["network"], "options": options, "objective": _MS_OBJECTIVES[objective]},
        {labels: round(100 - error, 2) for labels, error in errors.items()},
        std,
    )


_ABLATION: dict[str, dict[str, Any]] = {
    "supervised": {"objective": "supervised"},
    "entropy": {"objective": "entropy"},
    "global": {"objective": "global"},
    "multiscale": {"objective": "multiscale"},
    "weighted-entropy": {"objective": "weighted", "alpha": 0.7, "beta": 0.0},
    "weighted": {"objective": "weighted", "alpha": 0.7, "beta": 0.2},
}


def _ablation_rows() -> tuple[Row, ...]:
    return tuple(
        Row(
            name + ("-balance" if balance else ""),
            {"network": "smallcnn", "learning_rate": 0.01, **settings, **balance},
            {50: None},
        )
        for balance in ({}, {"balance": 4.0, "balance_memory": 0.9})
        for name, settings in _ABLATION.items()
    )


ALIASES = {"sw-figure4": "sw-figure3"}  # two figures of one network
TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            "inv-table2",
            "MNIST with 50 labels, and with 1000 by supervised training",
            "INV table 2",
            "accuracy",
            "mnist",
            ("few-labels", "inv-mnist"),
            # INV does not state how many epochs it trained for.
            {"smoke": 0.01, "cpu": 1.0, "paper": 100},
            {"smoke": 2, "cpu": 8, "paper": 100},
            _inv2_rows(),
        ),
        Table(
            "inv-figure2",
            "Bird10, raw audio, every label",
            "INV fig. 2",
            "accuracy",
            "bird10",
            ("inv-bird10",),
            {"smoke": 1, "cpu": 12, "paper": 300},
            {"smoke": 1, "cpu": 12, "paper": 300},
            _inv_figure2_rows(),
            {"bird_kenya6": (None,)},
        ),
        Table(
            "ms-table2",
            "SVHN with 500 and 1000 labels",
            "MS table 2",
            "error",
            "svhn",
            ("ms",),
            {"smoke": 0.002, "cpu": 0.015, "paper": 400},
            {"smoke": 1, "cpu": 1, "paper": 400},
            (
                _ms_row("cnn-lambda", {500: 10.17, 1000: 7.20}, {}),
                _ms_row("deep-resnet-lambda", {500: 11.08, 1000: 8.28}, {}),
                _ms_row("wide-resnet-lambda", {500: 9.82, 1000: 7.14}, {500: 1.5, 1000: 0.3}),
                _ms_row("cnn-gamma", {500: 11.67, 1000: 9.51}, {}),
                _ms_row("wide-resnet-gamma", {500: 12.36, 1000: 10.17}, {}),
                _ms_row("deep-resnet-gamma", {500: 8.95, 1000: 11.27}, {}),
                _ms_row(
                    "sigmoid-wide-resnet-lambda", {500: 20.35, 1000: 7.78}, {500: 6.2, 1000: 0.2}
                ),
            ),
            {"svhn_small": (100,)},
        ),
        Table(
            "ms-table3",
            "CIFAR-10 with 4000 and 8000 labels",
            "MS table 3",
            "error",
            "cifar10",
            ("ms",),
            {"smoke": 0.002, "cpu": 0.015, "paper": 400},
            {"smoke": 1, "cpu": 1, "paper": 400},
            (
                _ms_row("cnn-lambda", {4000: 22.63, 8000: 17.92}, {4000: 0.44, 8000: 0.3}),
                _ms_row("wide-resnet-lambda", {4000: 23.71, 8000: 19.63}, {}),
                _ms_row("deep-resnet-lambda", {4000: 28.64, 8000: 24.53}, {}),
                _ms_row("cnn-gamma", {4000: 25.19, 8000: 19.96}, {}),
                _ms_row("deep-resnet-gamma", {4000: 27.62, 8000: 21.99}, {}),
                _ms_row("wide-resnet-gamma", {4000: 26.18, 8000: 21.24}, {}),
                _ms_row("sigmoid-cnn-lambda", {4000: 21.91, 8000: 16.45}, {4000: 0.42, 8000: 0.23}),
            ),
        ),
        Table(
            "mnist-ablation",
            "What each term adds: SmallCNN mean, MNIST with 50 labels",
            "in no paper",
            "accuracy",
            "mnist",
            ("ablation",),
            {"smoke": 0.01, "cpu": 0.1, "paper": 100},
            {"smoke": 2, "cpu": 2, "paper": 100},
            _ablation_rows(),
        ),
        Table(
            "birds-few-labels",
            "Few labelled recordings of each class, the others unlabelled",
            "in no paper",
            "accuracy",
            "bird_kenya6",
            ("by-recording", "by-recordist", "by-speaker"),
            {},
            {},
            tuple(
                Row(name, {"network": "bird10", **settings}, dict.fromkeys(labels))
                for name, settings, labels in bird_rows.rows()
            ),
            {"fsdd": (1, 3)},
            {"smoke": 10, "cpu": 1000, "paper": 10_000},
        ),
        Table(
            "birds-suggest",
            "Labels added by suggestion and by chance, six recordings at a time",
            "in no paper",
            "accuracy",
            "bird_kenya6",
            ("by-recording",),
            {},
            {},
            tuple(
                Row(
                    way,
                    {"network": "bird10", **bird_rows.ours()},
                    dict.fromkeys(bird_rows.ROUNDS),
                )
                for way in WAYS
            ),
            steps={"smoke": 10, "cpu": 600, "paper": 10_000},
        ),
        *SW_TABLES,
    )
}
