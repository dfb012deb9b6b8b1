"""Pages proven many at a time, with numpy.

A file of a gigabyte has hundreds of thousands of pages and millions of elements: a loop over them
in Python takes many times longer than reading the bytes. Here a batch of pages is proven with a
few dozen operations on arrays: headers, bounds, element headers, the order of keys, and that no
page comes twice. What is proven is the same as what `bolt.image` and `bolt.bucket` look at one by
one.

The proof only ever accepts. Where anything is unusual it gives None, and the caller goes the slow
way, which accepts the pages too or says exactly what is wrong.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backstay.bolt.batch import NO_LIMIT, Batch, Ints, Keys, Leaves, Proven
from backstay.bolt.image import ELEMENT_SIZE, FIRST_PAGE, HEADER_SIZE, Image
from backstay.bolt.page import BRANCH_PAGE, LEAF_PAGE
from backstay.bolt.visited import Visited

#: So many elements are proven at a time at most, unless a single page has more.
BATCH_ELEMENTS = 1 << 15
#: Bytes; more than the arrays of a batch take together.
_KEPT_MEMORY = 8 << 20
#: A tree is divided where it has so many subtrees.
_SUBTREES = 32
#: Longer keys are not compared here.
MAX_KEY_SIZE = 24

_WORD = 8
_WORDS = MAX_KEY_SIZE // _WORD
#: For each number of bytes, a mask for the first of eight in big-endian order.
_MASKS = np.array(
    [(1 << 64) - (1 << (64 - 8 * size)) for size in range(_WORD + 1)], dtype=np.uint64
)


@dataclass(frozen=True, slots=True)
class _Heads:
    """Headers of pages, proven by themselves."""

    counts: Ints
    spans: Ints
    tables: Ints
    limits: Ints

    @property
    def data(self) -> Ints:
        return self.tables + self.counts * ELEMENT_SIZE

    def rows(self) -> tuple[Ints, Ints]:
        """For each element, the number of its header in units of 16 bytes; where pages begin."""
        firsts = np.cumsum(self.counts) - self.counts
        rows = np.repeat(self.tables // ELEMENT_SIZE - firsts, self.counts)
        rows += np.arange(len(rows))
        return rows, firsts


class Bulk:
    """Proves batches of pages of one file.

    Args:
        image: the file.
        visited: pages that count as seen; those that are proven are added.
    """

    def __init__(self, image: Image, visited: Visited) -> None:
        self._image = image
        # glibc takes the largest block that was freed as what a program deals in, and keeps that
        # much. Else arrays of each batch would come as fresh pages from the system, zeroed.
        np.empty(_KEPT_MEMORY, np.uint8)
        size = len(image.data)
        self._rows: NDArray[np.void] = np.ndarray((size // 16,), "V16", image.data)
        self._texts: NDArray[np.void] = np.ndarray(
            (max(size - MAX_KEY_SIZE + 1, 0),), f"V{MAX_KEY_SIZE}", image.data, 0, (1,)
        )
        self._seen: NDArray[np.uint8] = np.frombuffer(visited.seen, np.uint8)

    def prove(self, batch: Batch) -> Proven | None:
        """Prove the first pages of a batch, all of them leaves or all of them branches.

        Returns:
            What was proven; None where something is unusual.
        """
        found = self._heads(batch.numbers)
        if found is None:
            return None
        kind, heads = found
        batch = batch[: len(heads.counts)]
        pages = np.repeat(batch.numbers - (np.cumsum(heads.spans) - heads.spans), heads.spans)
        pages += np.arange(len(pages))
        if self._seen[pages].any() or (np.diff(np.sort(pages)) == 0).any():
            return None
        leaves = self._leaves(batch, heads) if kind == LEAF_PAGE else None
        below = self._branches(batch, heads) if kind == BRANCH_PAGE else None
        if leaves is None and below is None:
            return None
        self._seen[pages] = 1
        return Proven(len(batch), leaves, below)

    def _heads(self, numbers: Ints) -> tuple[int, _Heads] | None:
        image = self._image
        if numbers.min() < FIRST_PAGE or numbers.max() >= image.high_water:
            return None
        begins = numbers * image.page_size
        rows = self._rows[begins // 16]
        ids = rows.view("<u8")[::2]
        kinds, counts = rows.view("<u2")[4::8], rows.view("<u2")[5::8].astype(np.int64)
        spans = rows.view("<u4")[3::4].astype(np.int64) + 1
        kind = int(kinds[0])
        fit = max(1, int(np.searchsorted(np.cumsum(counts), BATCH_ELEMENTS, "right")))
        tables = begins + HEADER_SIZE
        limits = (numbers + spans) * image.page_size
        if (
            kind not in {LEAF_PAGE, BRANCH_PAGE}
            or (kinds != kind).any()
            or (ids != numbers).any()
            or (counts == 0).any()
            or (limits > image.high_water * image.page_size).any()
            or (tables + counts * ELEMENT_SIZE > limits).any()
            # Pages that overlap: else a few could stand for any number of them.
            or spans.sum() > image.high_water
        ):
            return None
        return kind, _Heads(counts[:fit], spans[:fit], tables[:fit], limits[:fit])

    def _leaves(self, batch: Batch, heads: _Heads) -> Leaves | None:
        rows, firsts = heads.rows()
        table = self._rows[rows].view("<u4").reshape(-1, 4)
        keys = Keys(table[:, 1] + rows * ELEMENT_SIZE, table[:, 2].astype(np.int64))
        stops = keys.offsets + keys.sizes + table[:, 3]
        if table[:, 0].any() or not _contiguous(keys.offsets, stops, firsts, heads):
            return None
        if not self._ordered(keys, firsts, batch):
            return None
        lasts = firsts + heads.counts - 1
        return Leaves(keys.offsets[firsts], stops[lasts], keys, stops, int(heads.spans.sum()))

    def _branches(self, batch: Batch, heads: _Heads) -> Batch | None:
        rows, firsts = heads.rows()
        elements = self._rows[rows]
        table = elements.view("<u4").reshape(-1, 4)
        numbers = elements.view("<u8")[1::2]
        keys = Keys(table[:, 0] + rows * ELEMENT_SIZE, table[:, 1].astype(np.int64))
        stops = keys.offsets + keys.sizes
        if not _contiguous(keys.offsets, stops, firsts, heads):
            return None
        if not self._ordered(keys, firsts, batch) or (numbers >= self._image.high_water).any():
            return None
        highs = keys[1:].then(batch.highs[-1:])
        lasts = firsts + heads.counts - 1
        highs.offsets[lasts] = batch.highs.offsets
        highs.sizes[lasts] = batch.highs.sizes
        return Batch(numbers.astype(np.int64), keys, highs, batch.depth + 1)

    def _ordered(self, keys: Keys, firsts: Ints, batch: Batch) -> bool:
        """Whether keys rise, and those of each page stay within what the branch above says."""
        texts = self._texts_of(keys)
        lows = self._texts_of(batch.lows)
        limited = batch.highs.sizes != NO_LIMIT
        highs = self._texts_of(batch.highs[limited])
        if texts is None or lows is None or highs is None:
            return False
        lasts = np.append(firsts[1:], len(keys.sizes)) - 1
        return (
            _all_less(texts[:-1], texts[1:])
            and _all_less(texts[lasts[limited]], highs)
            and _all_less(lows, texts[firsts], or_equal=True)
        )

    def _texts_of(self, keys: Keys) -> "_Texts | None":
        """Read keys to be compared; None where one is too long for that."""
        offsets, sizes = keys.offsets, keys.sizes
        if not len(sizes):
            return _Texts(np.empty((_WORDS, 0), np.uint64), sizes)
        shortest, longest = int(sizes.min()), int(sizes.max())
        if longest > MAX_KEY_SIZE or int(offsets.max()) >= len(self._texts):
            return None
        rows: NDArray[np.uint64] = self._texts[offsets].view("<u8").reshape(-1, _WORDS)
        words = np.ascontiguousarray(rows.byteswap(inplace=True).T)
        for index in range(shortest // _WORD, _WORDS):
            words[index] &= _MASKS[np.minimum(np.maximum(sizes - _WORD * index, 0), _WORD)]
        return _Texts(words, sizes)


@dataclass(frozen=True, slots=True)
class _Texts:
    """Keys as three big-endian numbers each, zeros after the end, and their sizes.

    These have the order of the keys: where all numbers are equal, one key is the other with zeros
    at its end, and the shorter one comes first.
    """

    words: NDArray[np.uint64]
    sizes: Ints

    def __getitem__(self, index: Any) -> "_Texts":
        return _Texts(self.words[:, index], self.sizes[index])


def _all_less(ones: _Texts, others: _Texts, *, or_equal: bool = False) -> bool:
    """Whether each key of one list comes before its counterpart in the other."""
    less: NDArray[np.bool_] = ones.words[0] < others.words[0]
    if less.all():
        return True
    equal: NDArray[np.bool_] = ones.words[0] == others.words[0]
    for one, other in zip(
        [*ones.words[1:], ones.sizes], [*others.words[1:], others.sizes], strict=True
    ):
        less |= equal & (one < other)
        equal &= one == other
    return bool((less | equal if or_equal else less).all())


def divide(image: Image, visited: Visited, batch: Batch, half: int) -> Batch:
    """Give one half of a tree.

    Args:
        image: the file.
        visited: what is above the halves is added to it, for the first half.
        batch: the tree.
        half: 0 or 1.
    """
    top = Visited(image)
    while len(batch) < _SUBTREES:
        # Leaves must stay unseen: whoever reads the halves comes to them again.
        trial = Bulk(image, Visited(image)).prove(batch)
        if trial is None or trial.below is None or trial.pages < len(batch):
            break
        Bulk(image, top).prove(batch)
        batch = trial.below
    middle = (len(batch) + 1) // 2
    if half == 1:
        return batch[middle:]
    visited.merge(bytes(top.seen))
    return batch[:middle]


def _contiguous(starts: Ints, stops: Ints, firsts: Ints, heads: _Heads) -> bool:
    """Whether the data of each element begin where those of the one before it end."""
    expected = np.empty_like(starts)
    expected[1:] = stops[:-1]
    expected[firsts] = heads.data
    lasts = firsts + heads.counts - 1
    return bool((starts == expected).all() and (stops[lasts] <= heads.limits).all())
