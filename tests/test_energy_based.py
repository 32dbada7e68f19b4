"""The energy is the reconstruction error, and a small energy-based GAN learns with it."""

import math

import pytest
import torch
from torch import nn

import birdinv

NETWORKS = {
    "dense": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)), (6,)),
    "signals": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, 2), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
        ),
        (2, 9),
    ),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)
        ),
        (1, 6, 6),
    ),
    "bird10": (
        lambda: birdinv.networks.build("bird10", classes=3, shape=(1, 4700), width=4, dense=5),
        (1, 4700),
    ),
}


@pytest.fixture(params=NETWORKS)
def problem(request):
    torch.manual_seed(0)
    make, shape = NETWORKS[request.param]
    model = make().double()
    model(torch.randn(8, *shape).double())  # batch statistics
    return model.eval(), torch.randn(3, *shape).double()


def energies(model, x):
    """`‖A[x]ᵀ f(x) − x‖² / D`, sample by sample, the Jacobian written out."""
    each = []
    for sample in x:
        rows = torch.autograd.functional.jacobian(lambda a: model(a[None])[0], sample)
        x_hat = torch.einsum("k,k...->...", model(sample[None])[0], rows)
        each.append(((x_hat - sample) ** 2).sum() / sample.numel())
    return torch.stack(each).detach()


@pytest.mark.parametrize("exact", [False, True])
def test_the_energy_is_the_error_of_the_jacobians_reconstruction(problem, exact):
    model, x = problem
    got = birdinv.energy(model, x, exact=exact)
    torch.testing.assert_close(got, energies(model, x), rtol=0, atol=1e-10)


def test_in_eval_mode_no_sample_depends_on_the_rest_of_the_batch(problem):
    model, x = problem
    alone = torch.cat([birdinv.energy(model, x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(birdinv.energy(model, x), alone, rtol=0, atol=1e-12)


def test_its_gradient_in_the_input_is_that_of_finite_differences(problem):
    model, x = problem
    x = x.requires_grad_()
    energy = birdinv.energy(model, x)
    energy.sum().backward()
    step = 1e-6
    for direction in torch.randn(3, *x.shape).double():
        with torch.no_grad():
            up, down = (birdinv.energy(model, x + way * direction) for way in (step, -step))
        slopes = ((up - down) / (2 * step)).tolist()
        along = (x.grad * direction).flatten(1).sum(dim=1).tolist()
        assert along == pytest.approx(slopes, abs=1e-7, rel=1e-6)


def test_without_gradients_it_is_the_same_number(problem):
    model, x = problem
    with torch.no_grad():
        energy = birdinv.energy(model, x)
    assert not energy.requires_grad
    torch.testing.assert_close(energy, birdinv.energy(model, x).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("margin", [1e-6, 0.05, 0.5, 100.0])
def test_the_losses_are_their_formulas(margin):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    real, fake = torch.randn(5, 6).double(), torch.randn(3, 6).double()
    ours = birdinv.EnergyObjective(margin)
    low, high = energies(model, real).tolist(), energies(model, fake).tolist()
    expected = sum(low) / 5 + sum(max(0.0, margin - e) for e in high) / 3
    assert ours.discriminator(model, real, fake).item() == pytest.approx(expected, abs=1e-10)
    assert ours.generator(model, fake).item() == pytest.approx(sum(high) / 3, abs=1e-10)


def test_generated_inputs_beyond_the_margin_are_left_alone():
    """The hinge: each sample by its own energy, not by their mean."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    fake = torch.cat([10 * torch.randn(2, 6), 0.1 * torch.randn(2, 6)]).double().requires_grad_()
    high, low = birdinv.energy(model, fake.detach())[:2], birdinv.energy(model, fake.detach())[2:]
    assert low.max() < 1 < high.min()
    birdinv.EnergyObjective(1.0).discriminator(model, fake[:1].detach(), fake).backward()
    assert fake.grad[:2].abs().max() == 0
    pushed = fake.detach().clone().requires_grad_()
    birdinv.energy(model, pushed)[2:].mean().backward()
    torch.testing.assert_close(fake.grad[2:], -pushed.grad[2:] / 2, rtol=0, atol=1e-12)


def test_the_discriminators_step_is_not_the_generators():
    torch.manual_seed(0)
    model, maker = nn.Linear(4, 2), nn.Linear(3, 4)
    ours = birdinv.EnergyObjective(10.0)
    fake = maker(torch.randn(5, 3))
    ours.discriminator(model, torch.randn(5, 4), fake.detach()).backward()
    assert maker.weight.grad is None and model.weight.grad.abs().max() > 0
    ours.generator(model, fake).backward()
    assert maker.weight.grad.abs().max() > 0


@pytest.mark.parametrize("margin", [0, -1.0, math.nan])
def test_a_margin_of_nothing_is_refused(margin):
    with pytest.raises(ValueError, match=f"margin is {margin}; expected a number above 0"):
        birdinv.EnergyObjective(margin)


def ring(samples):
    """Points round a circle in a plane of 8 dimensions, with a little noise: `mean x² ≈ 0.28`."""
    angle = 2 * torch.pi * torch.rand(samples)
    plane = torch.stack([angle.cos(), angle.sin()], dim=1) @ torch.eye(2, 8)
    return 1.5 * plane + 0.05 * torch.randn(samples, 8)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_energy_based_gan_finds_the_data(seed):
    torch.manual_seed(seed)
    data, latent = ring(500), torch.randn(200, 4)
    discriminator = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(), nn.Linear(32, 4))
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8))
    nn.init.ones_(generator[2].bias)  # begins away from the ring

    def distance():
        """From generated points to the nearest real one, on average."""
        return torch.cdist(generator(latent), data).amin(dim=1).mean().item()

    before = distance()
    objective = birdinv.EnergyObjective(margin=0.3)
    judging, making = (
        torch.optim.Adam(net.parameters(), lr=0.003) for net in (discriminator, generator)
    )
    for _ in range(300):
        fake = generator(torch.randn(64, 4))
        judging.zero_grad()
        objective.discriminator(discriminator, ring(64), fake.detach()).backward()
        judging.step()
        making.zero_grad()
        objective.generator(discriminator, fake).backward()
        making.step()

    assert distance() < before / 2
    noise = torch.randn(200, 8)
    noise = 1.5 * noise / noise.norm(dim=1, keepdim=True)  # as far from the middle as the ring
    with torch.no_grad():
        real, random = (birdinv.energy(discriminator, x).mean() for x in (ring(200), noise))
    assert real < random / 1.5
