"""Networks written down as SW §4 writes them: `(64)5c-2p-(64)3c-2p-10fc`.

======== ==========================================================================
`(F)Kc`  convolution: F filters of K (square) places; `(F)Kc/S` with a stride of S
`Pp`     pooling over P (× P) places, as far from the next
`Ufc`    fully connected layer of U units; `Kfc` has one for each class
======== ==========================================================================

The nonlinearities are not written, as in the paper. The stride and `Kfc` are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

LONGEST = 1000  # characters; whoever sends a model folder writes this text too
_MOST = {"filters": 4096, "kernel": 65_536, "stride": 65_536, "window": 4096, "units": 65_536}


@dataclass(frozen=True)
class Conv:
    """`filters` of `kernel` places each way, `stride` apart."""

    filters: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class Pool:
    """A pooling over windows of `window` places each way, side by side."""

    window: int


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; None units = one for each class."""

    units: int | None


Layer = Conv | Pool | Dense


def parse(text: str) -> tuple[Layer, ...]:
    """The layers of a network in SW's notation; spaces between its parts do not matter.

    Convolutions come first, at most one pooling after each, and fully connected layers last.

    Raises:
        ValueError: the text is not in the notation; the sentence points at the character.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"it has {len(text)} characters; expected at most {LONGEST}, such as (64)5c-2p-10fc"
        )
    reader = _Reader(text)
    layers = [reader.layer(None)]
    while reader.take("-"):
        layers.append(reader.layer(layers[-1]))
    if not reader.ended:
        reader.refuse("expected - and another layer")
    return tuple(layers)


class _Reader:
    """Goes through the text a character at a time."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def layer(self, before: Layer | None) -> Layer:
        """The next layer, which may follow `before`."""
        self._skip()
        start = self._at
        if self.take("("):
            if isinstance(before, Dense):
                self._refuse(start, "a convolution cannot follow a fully connected layer")
            filters = self._number("filters")
            self._expect(")")
            kernel = self._number("kernel")
            self._expect("c")
            return Conv(filters, kernel, self._number("stride") if self.take("/") else 1)
        if self.take("K"):
            self._expect("fc")
            return self._dense(None, before, start)
        if not _is_digit(self._peek()):
            self.refuse("expected a layer: (64)5c, 2p or 10fc")
        number = self._digits()
        if self.take("p"):
            if self.take("/"):
                self._refuse(
                    self._at - 1,
                    "pooling windows lie side by side: if they overlapped, a place could get two "
                    "values back; leave the stride out",
                )
            if not isinstance(before, Conv):
                self._refuse(start, "a pooling has to follow a convolution")
            return Pool(self._checked("window", number, start))
        if not self.take("fc"):
            self.refuse(f"expected p or fc after {number}, or ({number}) for filters")
        return self._dense(self._checked("units", number, start), before, start)

    def _dense(self, units: int | None, before: Layer | None, start: int) -> Dense:
        if before is None:
            self._refuse(start, "a network has to begin with a convolution")
        return Dense(units)

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        self._skip()
        return self._at == len(self._text)

    def take(self, word: str) -> bool:
        """Goes past `word`, if it is next."""
        self._skip()
        there = self._text.startswith(word, self._at)
        self._at += len(word) * there
        return there

    def refuse(self, why: str) -> NoReturn:
        """Raises with a pointer at what is next."""
        self._skip()
        found = repr(self._peek()) if self._peek() else "the end"
        self._refuse(self._at, f"{why}, found {found}")

    def _refuse(self, at: int, why: str) -> NoReturn:
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self._text)
        raise ValueError(f"at character {at + 1}, {why}\n  {text}\n  {' ' * at}^")

    def _expect(self, word: str) -> None:
        if not self.take(word):
            self.refuse(f"expected {word}")

    def _number(self, what: str) -> int:
        self._skip()
        start = self._at
        if not _is_digit(self._peek()):
            self.refuse(f"expected the {what}, a number")
        return self._checked(what, self._digits(), start)

    def _digits(self) -> str:
        start = self._at
        while _is_digit(self._peek()):
            self._at += 1
        return self._text[start : self._at]

    def _checked(self, what: str, digits: str, at: int) -> int:
        most = _MOST[what]
        if not 1 <= int(digits) <= most:
            self._refuse(at, f"the {what}: expected 1 to {most}, found {digits}")
        return int(digits)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        while self._peek() == " ":
            self._at += 1


def _is_digit(character: str) -> bool:
    return character.isascii() and character.isdecimal()
