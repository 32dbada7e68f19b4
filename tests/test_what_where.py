"""Poolings that tell what from where, and their ways back, are loops over windows written out."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from birdinv.networks.what_where import SoftSwitches, Switches, Upsampling

SIZES = [((2,), (5,)), ((3,), (6,)), ((2, 2), (4, 5)), ((2, 3), (5, 7)), ((1, 4), (2, 4))]
both_dimensions = pytest.mark.parametrize(("window", "size"), SIZES)


def in_windows(window, size):
    """Of each window its index and the places in it, row by row."""
    counts = [side // k for side, k in zip(size, window, strict=True)]
    for index in itertools.product(*map(range, counts)):
        rows = [range(i * k, (i + 1) * k) for i, k in zip(index, window, strict=True)]
        yield index, list(itertools.product(*rows))


def at(z, place):
    """Of every sample and channel the number at `place`, `[N, C]`."""
    return z[(..., *place)]


def pooled(z, window):
    """Zeros, one for each window."""
    return z.new_zeros(*z.shape[:2], *(n // k for n, k in zip(z.shape[2:], window, strict=True)))


def slow_hard(z, window):
    """(maxima, their places in the flattened map, the map of maxima alone), the first of equals."""
    size = z.shape[2:]
    what, alone = pooled(z, window), torch.zeros_like(z)
    where = what.long()
    for n, c in itertools.product(range(len(z)), range(z.shape[1])):
        one = z[n, c]
        for index, places in in_windows(window, size):
            best = places[0]
            for place in places:
                if one[place] > one[best]:
                    best = place
            what[(n, c, *index)] = alone[(n, c, *best)] = one[best]
            where[(n, c, *index)] = best[0] if len(size) == 1 else best[0] * size[1] + best[1]
    return what, where, alone


def coordinates(index, place, window):
    """Where a place lies in its window, from −1 to 1 along each dimension."""
    steps = [p - i * k for p, i, k in zip(place, index, window, strict=True)]
    return [-1 + 2 * s / (k - 1) if k > 1 else 0.0 for s, k in zip(steps, window, strict=True)]


def slow_soft(z, window, beta):
    """(m, p) of SW 3 and 4."""
    m = pooled(z, window)
    p = torch.stack([m] * len(window), dim=-1)
    for index, places in in_windows(window, z.shape[2:]):
        top = torch.stack([at(z, place) for place in places]).amax(dim=0)
        below = sum(torch.exp(beta * (at(z, place) - top)) for place in places)
        for place in places:
            w = torch.exp(beta * (at(z, place) - top)) / below
            m[(..., *index)] += at(z, place) * w
            for d, x in enumerate(coordinates(index, place, window)):
                p[(..., *index, d)] += x * w
    return m, p


def slow_interpolation(what, where, window, size):
    """`m · Π_d max(0, 1 − |p_d − place_d|)`, distances in places."""
    out = what.new_zeros(*what.shape[:2], *size)
    for index, places in in_windows(window, size):
        for place in places:
            share = at(what, index).clone()
            for d, x in enumerate(coordinates(index, place, window)):
                distance = (where[(..., *index, d)] - x).abs() * (window[d] - 1) / 2
                share *= (1 - distance).clamp(min=0)
            out[(..., *place)] = share
    return out


@st.composite
def maps(draw):
    """(window, map): of one or two dimensions, negative too, with what windows leave over."""
    window = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    size = [k * draw(st.integers(1, 3)) + draw(st.integers(0, k - 1)) for k in window]
    torch.manual_seed(draw(st.integers(0, 1000)))
    z = torch.randn(2, 2, *size).double()
    return window, z.round() if draw(st.booleans()) else z


def apart(*shape, step=0.1):
    """Numbers of which no two are nearer than `step`, of either sign."""
    count = torch.Size(shape).numel()
    return (step * (torch.randperm(count).double() - count / 2 + 0.3)).view(shape)


@settings(max_examples=60, deadline=None)
@given(maps())
def test_unpooling_by_switches_keeps_the_maxima_and_nothing_else(drawn):
    window, z = drawn
    pool = Switches(window)
    what, where = pool.split(z)
    maxima, places, alone = slow_hard(z, window)
    assert torch.equal(what, maxima) and torch.equal(where, places)
    assert where.dtype == torch.int64
    assert torch.equal(pool(z), what)
    assert torch.equal(pool.unpool(what, where, z.shape[2:]), alone)


def test_of_equal_maxima_the_first_is_kept():
    z = torch.tensor([[[[-1.0, -1.0, 5.0], [-1.0, -2.0, 5.0]]]])
    pool = Switches((2, 2))
    kept = pool.unpool(*pool.split(z), (2, 3))
    assert kept.tolist() == [[[[-1, 0, 0], [0, 0, 0]]]]


def test_switches_are_torch_s_unpooling():
    z = torch.randn(2, 3, 9, 8)
    pool = Switches((3, 2))
    what, where = pool.split(z)
    unpooled = nn.MaxUnpool2d((3, 2))(what, where, output_size=z.shape)
    assert torch.equal(pool.unpool(what, where, (9, 8)), unpooled)


@settings(max_examples=60, deadline=None)
@given(maps(), st.sampled_from([0.0, 0.5, 3.0, 100.0]))
def test_soft_pooling_is_the_paper_s_sums_over_the_window(drawn, beta):
    window, z = drawn
    pool = SoftSwitches(window, beta)
    what, where = pool.split(z)
    m, p = slow_soft(z, window, beta)
    torch.testing.assert_close(what, m, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(where, p, rtol=1e-12, atol=1e-12)
    assert torch.equal(pool(z), what)


@settings(max_examples=60, deadline=None)
@given(maps())
def test_soft_unpooling_shares_a_value_between_the_places_around_its_own(drawn):
    """Anywhere in the window; what is shared out is what was pooled."""
    window, z = drawn
    size = z.shape[2:]
    pool = SoftSwitches(window, 1.0)
    what, where = pool.split(z)
    where = 2 * torch.rand_like(where) - 1
    # The one place of a window of one is 0.
    where = torch.where(torch.tensor(window) > 1, where, 0.0)
    out = pool.unpool(what, where, size)
    expected = slow_interpolation(what, where, window, size)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for index, places in in_windows(window, size):
        total = sum(at(out, place) for place in places)
        torch.testing.assert_close(total, at(what, index), rtol=1e-12, atol=1e-12)
        assert sum((at(out, place) != 0).long() for place in places).max() <= 2 ** len(window)


@both_dimensions
def test_a_large_beta_is_the_maximum_and_its_place(window, size):
    torch.manual_seed(0)
    z = apart(2, 2, *size)
    soft, hard = SoftSwitches(window, 1e4), Switches(window)
    torch.testing.assert_close(soft(z), hard(z), rtol=1e-12, atol=1e-12)
    kept = hard.unpool(*hard.split(z), size)
    torch.testing.assert_close(soft.unpool(*soft.split(z), size), kept, rtol=1e-12, atol=1e-12)


@both_dimensions
def test_without_beta_it_is_the_mean_in_the_middle(window, size):
    torch.manual_seed(0)
    z = torch.randn(2, 3, *size).double()
    what, where = SoftSwitches(window, 0.0).split(z)
    mean = nn.AvgPool1d(window) if len(window) == 1 else nn.AvgPool2d(window)
    torch.testing.assert_close(what, mean(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(where, torch.zeros_like(where), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "place", "shared"),
    [
        (6.0, (-1.0, -1.0), {(0, 0): 6}),
        (6.0, (1.0, 0.0), {(1, 1): 6}),
        (8.0, (0.0, 0.5), {(0, 1): 2, (0, 2): 2, (1, 1): 2, (1, 2): 2}),
        (-8.0, (-0.5, 0.0), {(0, 1): -6, (1, 1): -2}),
    ],
)
def test_a_value_between_places_is_shared_by_their_nearness(value, place, shared):
    """In a window of two rows and three columns, of a map with a row and a column more."""
    what, where = torch.full((1, 1, 1, 1), value), torch.tensor(place).view(1, 1, 1, 1, 2)
    expected = torch.zeros(1, 1, 3, 4)
    for (row, column), part in shared.items():
        expected[0, 0, row, column] = part
    assert torch.equal(SoftSwitches((2, 3), 1.0).unpool(what, where, (3, 4)), expected)


@settings(max_examples=40, deadline=None)
@given(maps())
def test_upsampling_copies_the_maximum_all_over_its_window(drawn):
    window, z = drawn
    pool = Upsampling(window)
    what, where = pool.split(z)
    maxima, _, _ = slow_hard(z, window)
    assert where is None
    assert torch.equal(what, maxima) and torch.equal(pool(z), maxima)
    expected = torch.zeros_like(z)
    for index, places in in_windows(window, z.shape[2:]):
        for place in places:
            expected[(..., *place)] = at(maxima, index)
    assert torch.equal(pool.unpool(what, None, z.shape[2:]), expected)


@pytest.mark.parametrize("pool", [Switches((2, 3)), SoftSwitches((2, 3), 2.0), Upsampling((2, 3))])
def test_what_no_window_reaches_is_left_out_and_comes_back_as_zeros(pool):
    z = torch.rand(1, 2, 5, 8) + 1
    beyond = z.clone()
    beyond[:, :, 4:] = beyond[:, :, :, 6:] = 100
    assert torch.equal(pool(beyond), pool(z))
    back = pool.unpool(*pool.split(beyond), (5, 8))
    assert back.shape == z.shape
    assert back[:, :, 4:].count_nonzero() == back[:, :, :, 6:].count_nonzero() == 0
    assert back[:, :, :4, :6].sum() > 0


@both_dimensions
@pytest.mark.parametrize("kind", [Switches, Upsampling])
def test_gradients_of_maxima_and_of_the_way_back_are_finite_differences(kind, window, size):
    torch.manual_seed(0)
    pool = kind(window)
    z = apart(2, 2, *size).requires_grad_()
    assert gradcheck(lambda z: pool.unpool(*pool.split(z), size), z)
    assert gradcheck(pool, z)
    assert gradgradcheck(pool, z)
    assert gradgradcheck(lambda z: pool.split(z)[0], z)


@both_dimensions
def test_gradients_of_soft_pooling_are_finite_differences(window, size):
    """Of what and where; of what the second ones too, which an inversion goes through."""
    torch.manual_seed(0)
    pool = SoftSwitches(window, 2.0)
    z = torch.randn(2, 2, *size).double().requires_grad_()
    assert gradcheck(pool.split, z)
    assert gradgradcheck(lambda z: pool.split(z)[0], z)


@both_dimensions
def test_gradients_of_soft_unpooling_are_finite_differences(window, size):
    """Of what and where, which lie between places: at a place itself there is a kink."""
    torch.manual_seed(0)
    pool = SoftSwitches(window, 2.0)
    what, where = pool.split(torch.randn(2, 2, *size).double())
    for d, k in enumerate(window):
        share = 0.1 + 0.8 * torch.rand(where.shape[:-1])
        between = torch.randint(0, max(k - 1, 1), share.shape) + share
        where[..., d] = 2 * between / (k - 1) - 1 if k > 1 else 0.0
    inputs = (what.requires_grad_(), where.requires_grad_())
    assert gradcheck(lambda what, where: pool.unpool(what, where, size), inputs)


def test_gradients_of_soft_pooling_reach_through_what_and_where_together():
    torch.manual_seed(0)
    pool = SoftSwitches((2, 3), 1.5)
    z = torch.randn(2, 2, 5, 7).double().requires_grad_()
    places = (pool.split(z)[1] + 1) / 2 * torch.tensor([1, 2])
    assert (places - places.round()).abs().min() > 1e-3  # far from every kink
    assert gradcheck(lambda z: pool.unpool(*pool.split(z), (5, 7)), z)


@pytest.mark.parametrize("place", [-1.0, 0.0, 1.0])
def test_at_a_place_itself_the_where_has_no_gradient(place):
    pool = SoftSwitches((3,), 1.0)
    what = torch.ones(1, 1, 1, requires_grad=True)
    where = torch.full((1, 1, 1, 1), place, requires_grad=True)
    out = pool.unpool(what, where, (3,))
    weighed = (out * torch.tensor([1.0, 10.0, 100.0])).sum()
    of_what, of_where = torch.autograd.grad(weighed, (what, where))
    assert of_what.item() == {-1.0: 1, 0.0: 10, 1.0: 100}[place]
    assert of_where.item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pool", [Switches((2, 4)), SoftSwitches((2, 4), 9.0), Upsampling((2, 4))])
def test_the_type_of_the_numbers_is_kept(pool, dtype):
    z = torch.randn(2, 3, 4, 9).to(dtype)
    what, where = pool.split(z)
    back = pool.unpool(what, where, (4, 9))
    assert what.dtype == back.dtype == dtype
    assert back.shape == z.shape


@pytest.mark.parametrize("kind", [Switches, Upsampling, lambda window: SoftSwitches(window, 1.0)])
@pytest.mark.parametrize("window", [(), (2, 2, 2), (0,), (2, -1)])
def test_a_window_of_no_size_is_refused(kind, window):
    with pytest.raises(ValueError, match="expected one or two lengths of at least 1"):
        kind(window)


@pytest.mark.parametrize("beta", [-0.1, float("inf"), float("nan")])
def test_a_beta_below_zero_or_without_end_is_refused(beta):
    with pytest.raises(ValueError, match=f"beta={beta}; expected a number from 0"):
        SoftSwitches((2,), beta)


@pytest.mark.parametrize("pool", [Switches((2,)), SoftSwitches((2,), 1.0)])
def test_unpooling_without_where_is_refused(pool):
    with pytest.raises(ValueError, match="needs the where that `split` gave"):
        pool.unpool(torch.ones(1, 1, 2), None, (4,))


def test_window_and_beta_are_printed():
    assert repr(Switches([3])) == "Switches(window=(3,))"
    assert repr(SoftSwitches((2, 3), 100.0)) == "SoftSwitches(window=(2, 3), beta=100)"


def test_half_precision_does_not_blur_the_places():
    torch.manual_seed(0)
    soft, z = SoftSwitches((300,), 50.0), torch.rand(2, 3, 600)
    _, exact = soft.split(z.double())
    with torch.autocast("cpu", torch.bfloat16):
        what, where = soft.split(z)
        map_ = soft.unpool(what, where, (600,))
    assert where.dtype == torch.float32
    torch.testing.assert_close(where.double(), exact, atol=1e-4, rtol=0)
    torch.testing.assert_close(map_.unflatten(2, (2, 300)).sum(dim=3), what, rtol=1e-4, atol=0)
    halves = soft.split(z.bfloat16())
    assert [each.dtype for each in halves] == [torch.bfloat16, torch.float32]
