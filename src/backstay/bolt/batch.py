"""What `bolt.bulk` works on and gives: many subtrees, many leaves, as columns.

Keys stay in the file; a column has their offsets and sizes.
"""

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backstay.bolt.bucket import Step
from backstay.bolt.image import Image

Ints = NDArray[np.int64]
#: A size that stands for no limit.
NO_LIMIT = -1


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys in the file.

    Attributes:
        offsets: where each begins.
        sizes: bytes of each; -1 stands for no limit.
    """

    offsets: Ints
    sizes: Ints

    def __getitem__(self, index: Any) -> "Keys":
        return Keys(self.offsets[index], self.sizes[index])

    def then(self, other: "Keys") -> "Keys":
        """Give these keys and others after them."""
        return Keys(
            np.concatenate([self.offsets, other.offsets]),
            np.concatenate([self.sizes, other.sizes]),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Subtrees that are still to be walked, in key order.

    Attributes:
        numbers: ids of their roots.
        lows: the least key that may lie in each.
        highs: the least key that may not.
        depth: how many branches are above them.
    """

    numbers: Ints
    lows: Keys
    highs: Keys
    depth: int

    def __getitem__(self, index: slice) -> "Batch":
        return Batch(self.numbers[index], self.lows[index], self.highs[index], self.depth)

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(cls, number: int) -> "Batch":
        """Give a whole tree."""
        zero = np.zeros(1, np.int64)
        return cls(zero + number, Keys(zero, zero), Keys(zero, zero + NO_LIMIT), 0)

    def steps(self, image: Image) -> list[Step]:
        """Give them in the form that walks page by page use."""
        return [
            Step(number, _text(image.data, *low) or b"", _text(image.data, *high), self.depth)
            for number, low, high in zip(
                self.numbers.tolist(), _pairs(self.lows), _pairs(self.highs), strict=True
            )
        ]


def _pairs(keys: Keys) -> list[tuple[int, int]]:
    return list(zip(keys.offsets.tolist(), keys.sizes.tolist(), strict=True))


def _text(data: mmap.mmap, offset: int, size: int) -> bytes | None:
    return None if size == NO_LIMIT else data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class Leaves:
    """Leaves that follow each other in key order; all is proven.

    Attributes:
        starts: for each leaf, the offset of its first key.
        ends: for each leaf, the offset after its last value.
        keys: for each element, where its key lies.
        stops: for each element, the offset after its value, which begins where the key ends.
        pages: how many pages the leaves take.
    """

    starts: Ints
    ends: Ints
    keys: Keys
    stops: Ints
    pages: int


@dataclass(frozen=True, slots=True)
class Proven:
    """The first pages of a batch, proven.

    Attributes:
        pages: how many of the batch's pages.
        leaves: the leaves, where they are leaves.
        below: what is below them, where they are branches.
    """

    pages: int
    leaves: Leaves | None = None
    below: Batch | None = None
