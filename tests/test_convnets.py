"""SmallCNN is the paper's."""

import pytest
import torch

import birdinv
from birdinv.errors import BirdinvError


def test_small_cnn_has_the_parameters_and_the_shapes_of_the_paper():
    model = birdinv.networks.build("smallcnn", classes=10, shape=(1, 28, 28))
    # SPL table 6 says 131 512, which is this and a last dense layer of 110.
    assert sum(p.numel() for p in model.parameters()) == 131_402
    shapes = {}
    for name in model.layers:
        getattr(model, name).register_forward_hook(
            lambda _m, _x, z, name=name: shapes.update({name: tuple(z.shape[1:])})
        )
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert list(shapes.values()) == [(32, 16, 16), (64, 14, 14), (64, 8, 8), (128, 6, 6)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 9, 13), (2, 8, 8)])
def test_small_cnn_takes_other_images(shape):
    model = birdinv.networks.build("smallcnn", classes=3, shape=shape)
    terms = birdinv.ParameterFreeObjective("multiscale")(
        model, torch.rand(2, *shape), torch.tensor([0, -1])
    )
    terms.total.backward()
    assert list(terms.levels) == ["input", *model.layers]
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("classes", "shape"), [(0, (1, 28, 28)), (10, (0, 28, 28)), (10, (1, 7, 28)), (10, (28, 28))]
)
def test_impossible_sizes_are_refused_with_a_sentence(classes, shape):
    with pytest.raises(BirdinvError, match="smallcnn"):
        birdinv.networks.build("smallcnn", classes=classes, shape=shape)
