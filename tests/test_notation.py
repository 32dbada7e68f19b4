"""Networks in the paper's notation are read as meant, and what is none is pointed at."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinv.networks.notation import LONGEST, Conv, Dense, Pool, parse


def convs(*sizes):
    return [Conv(filters, kernel) for filters, kernel in sizes]


PAPER = {
    "4": ("(16)5c-(32)3c-2p-10fc", [*convs((16, 5), (32, 3)), Pool(2), Dense(10)]),
    "4.1, 2": ("(16)5c-(32)3c-2p", [*convs((16, 5), (32, 3)), Pool(2)]),
    "4.1, 16": ("(16)5c-(32)3c-16p", [*convs((16, 5), (32, 3)), Pool(16)]),
    "4.2": (
        "(32)5c-(32)3c-2p-(32)3c-16p",
        [*convs((32, 5), (32, 3)), Pool(2), *convs((32, 3)), Pool(16)],
    ),
    "4.3.1, MNIST": (
        "(64) 5c-2p-(64) 3c-2p-(64) 3c-2p-10fc",
        [
            *convs((64, 5)),
            Pool(2),
            *convs((64, 3)),
            Pool(2),
            *convs((64, 3)),
            Pool(2),
            Dense(10),
        ],
    ),
    "4.3.1, SVHN": (
        "(128) 5c-2p-(128) 3c-(256) 3c-2p-(256) 3c-2p-10fc",
        [
            *convs((128, 5)),
            Pool(2),
            *convs((128, 3), (256, 3)),
            Pool(2),
            *convs((256, 3)),
            Pool(2),
            Dense(10),
        ],
    ),
    "4.3.2": (
        "(64) 3c-4p-(64) 3c-3p-(128) 3c-(128) 3c-2p-(256) 3c-(256) 3c-(256) 3c-(512) 3c-(512) 3c-"
        "(512) 3c-2p-10fc",
        [
            *convs((64, 3)),
            Pool(4),
            *convs((64, 3)),
            Pool(3),
            *convs((128, 3), (128, 3)),
            Pool(2),
            *convs(*[(256, 3)] * 3, *[(512, 3)] * 3),
            Pool(2),
            Dense(10),
        ],
    ),
    "4.4.1": (
        "(128) 3c- (256) 3c-2p- (256) 3c- (512) 3c-2p- (512) 3c- (512) 3c-2p- (512) 3c- (512) 3c-"
        "2p-128fc-10fc",
        [
            *convs((128, 3), (256, 3)),
            Pool(2),
            *convs((256, 3), (512, 3)),
            Pool(2),
            *convs((512, 3), (512, 3)),
            Pool(2),
            *convs((512, 3), (512, 3)),
            Pool(2),
            Dense(128),
            Dense(10),
        ],
    ),
}


@pytest.mark.parametrize("section", PAPER)
def test_the_networks_of_the_paper_are_read_with_and_without_its_spaces(section):
    text, layers = PAPER[section]
    assert parse(text) == parse(text.replace(" ", "")) == tuple(layers)


def test_strides_and_the_number_of_classes_are_read():
    text = "(42)1024c/512-2p-(42)3c-32fc-Kfc"
    layers = [Conv(42, 1024, 512), Pool(2), Conv(42, 3, 1), Dense(32), Dense(None)]
    assert parse(text) == tuple(layers)


def test_zeros_before_a_number_do_not_matter():
    assert parse("(0000064)05c/01-002p-0000010fc") == parse("(64)5c-2p-10fc")


def written(layer):
    """The parts of a layer, between which spaces may stand."""
    if isinstance(layer, Conv):
        stride = ["/", str(layer.stride)] if layer.stride != 1 else []
        return ["(", str(layer.filters), ")", str(layer.kernel), "c", *stride]
    if isinstance(layer, Pool):
        return [str(layer.window), "p"]
    return ["K" if layer.units is None else str(layer.units), "fc"]


numbers = st.integers(1, 4000)
convolutions = st.builds(Conv, numbers, numbers, st.just(1) | numbers)
stages = st.tuples(convolutions, st.just([]) | numbers.map(lambda n: [Pool(n)]))
heads = st.lists(st.builds(Dense, st.none() | numbers), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(stages, min_size=1, max_size=8), heads, st.randoms(use_true_random=False))
def test_what_is_written_down_is_read_back(stages, head, random):
    layers = [layer for conv, pool in stages for layer in (conv, *pool)] + head
    parts = [part for layer in layers for part in ("-", *written(layer))][1:]
    text = "".join(part + " " * random.choice([0, 0, 0, 1, 2]) for part in ["", *parts])
    assert parse(text) == tuple(layers)


pieces = st.sampled_from(
    ["(", ")", "64", "5", "0", "c", "p", "fc", "K", "/", "-", " ", "(8)3c", "-2p", "-10fc"]
)


@settings(max_examples=250, deadline=None)
@given(st.text() | st.lists(pieces, max_size=15).map("".join))
def test_any_text_is_layers_or_a_value_error_that_points_into_it(text):
    try:
        layers = parse(text)
    except ValueError as error:
        sentence, shown, caret = str(error).split("\n")
        place = int(re.match(r"at character (\d+), ", sentence)[1])
        assert 1 <= place <= len(text) + 1
        assert caret == "  " + " " * (place - 1) + "^"
        assert len(shown) == len(text) + 2
    else:
        again = "-".join("".join(written(layer)) for layer in layers)
        assert parse(again) == layers
        assert isinstance(layers[0], Conv)


WRONG = [
    ("", 1, r"expected a layer: \(64\)5c, 2p or 10fc, found the end"),
    ("   ", 4, "expected a layer.*found the end"),
    ("x", 1, "expected a layer.*found 'x'"),
    ("-(64)5c", 1, "expected a layer.*found '-'"),
    ("(64)5c-", 8, "expected a layer.*found the end"),
    ("(64)5c--2p", 8, "expected a layer.*found '-'"),
    ("(64)5c 2p", 8, "expected - and another layer, found '2'"),
    ("(64)5c-2p,10fc", 10, "expected - and another layer, found ','"),
    ("(64)5c\n-2p", 7, r"expected - and another layer, found '\\n'"),
    ("(64)5c-2p-10fc!", 15, "expected - and another layer, found '!'"),
    ("64c", 3, r"expected p or fc after 64, or \(64\) for filters, found 'c'"),
    ("(64)5c-10", 10, r"expected p or fc after 10, or \(10\) for filters, found the end"),
    ("(64)5c-10f", 10, "expected p or fc after 10.*found 'f'"),
    ("(64)5c-1 0fc", 10, "expected p or fc after 1.*found '0'"),
    ("(64)5c-Kf", 9, "expected fc, found 'f'"),
    ("(64)5c-k", 8, "expected a layer.*found 'k'"),
    ("()5c", 2, r"expected the filters, a number, found '\)'"),
    ("(64 5c", 5, r"expected \), found '5'"),
    ("(64)c", 5, "expected the kernel, a number, found 'c'"),
    ("(64)5", 6, "expected c, found the end"),
    ("(64)5x5c", 6, "expected c, found 'x'"),
    ("(64)-5c", 5, "expected the kernel, a number, found '-'"),
    ("(64)٥c", 5, "expected the kernel, a number, found '٥'"),
    ("(64)5²c", 6, "expected c, found '²'"),
    ("(64)5c/", 8, "expected the stride, a number, found the end"),
    ("(64)5c/2/2", 9, "expected - and another layer, found '/'"),
    ("(64)5c-2.5p", 9, "expected p or fc after 2.*found '.'"),
    ("2p-(64)5c", 1, "a pooling has to follow a convolution"),
    ("(64)5c-2p- 2p", 12, "a pooling has to follow a convolution"),
    ("(64)5c-10fc-2p", 13, "a pooling has to follow a convolution"),
    ("(64)5c-10fc- (64)5c", 14, "a convolution cannot follow a fully connected layer"),
    (" 10fc", 2, "a network has to begin with a convolution"),
    ("Kfc", 1, "a network has to begin with a convolution"),
    ("(0)5c", 2, "the filters: expected 1 to .*, found 0"),
    ("( 64)0c", 6, "the kernel: expected 1 to .*, found 0"),
    ("(64)5c/0", 8, "the stride: expected 1 to .*, found 0"),
    ("(64)5c-0p", 8, "the window: expected 1 to .*, found 0"),
    ("(64)5c-000fc", 8, "the units: expected 1 to .*, found 000"),
    (f"(64)5c-{'9' * 900}fc", 8, "the units: expected 1 to .*, found 999"),
]


@pytest.mark.parametrize(("text", "column", "sentence"), WRONG)
def test_what_cannot_be_read_is_pointed_at(text, column, sentence):
    with pytest.raises(ValueError, match=f"^at character {column}, {sentence}") as caught:
        parse(text)
    _, shown, caret = str(caught.value).split("\n")
    assert shown[2:] == text.replace("\n", "�")
    assert caret.index("^") - 2 == column - 1


@pytest.mark.parametrize(("pooling", "column"), [("3p/2", 10), ("3 p / 2", 12), ("2p/2", 10)])
def test_poolings_that_could_overlap_are_refused_with_the_reason(pooling, column):
    with pytest.raises(ValueError, match=r"windows lie side by side.*two values back") as caught:
        parse(f"(64)5c-{pooling}-10fc")
    assert str(caught.value).splitlines()[-1].index("^") - 2 == column - 1


@pytest.mark.parametrize("text", ["({})5c", "(64){}c", "(64)5c/{}", "(64)5c-{}p", "(64)5c-{}fc"])
def test_a_number_may_be_as_large_as_the_sentence_says_and_no_larger(text):
    with pytest.raises(ValueError, match="expected 1 to") as caught:
        parse(text.format(10**9))
    most = int(re.search(r"expected 1 to (\d+), found", str(caught.value))[1])
    assert len(parse(text.format(most))) == len(parse(text.format(1)))
    with pytest.raises(ValueError, match=f"expected 1 to {most}, found {most + 1}"):
        parse(text.format(most + 1))


def test_a_text_may_be_as_long_as_the_sentence_says_and_no_longer():
    assert parse("(64)5c".ljust(LONGEST)) == (Conv(64, 5),)
    with pytest.raises(ValueError, match=f"it has {LONGEST + 1} characters; expected at most"):
        parse("(64)5c".ljust(LONGEST + 1))
