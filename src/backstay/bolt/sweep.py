"""All leaves of a bucket, many at a time: the fast way to read a whole tree.

`Bucket.items` gives one element after the other; here a reader gets runs of leaves, each of them
one range of bytes that holds its keys and values without gaps, and the element headers, proven.
`bolt.bulk` proves plain leaves in batches; others are looked at one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from backstay.bolt.bucket import Branch, Bucket, Step, Visited
from backstay.bolt.bulk import Leaves, prove, rising
from backstay.bolt.image import Image, Page

#: A run is handed out when it has so many bytes or leaves: enough to make a call worth its
#: price, few enough to stay in the processor's cache.
RUN_BYTES = 1 << 20
RUN_LEAVES = 256


@dataclass(slots=True)
class Run:
    """Some leaves that follow each other in key order; their element headers are proven.

    Attributes:
        tables: for each leaf, its element headers.
        starts: for each leaf, the offset of its first key.
        ends: for each leaf, the offset after its last value.
        counts: for each leaf, the number of its elements.
        pages: bytes of the pages that they take.
    """

    tables: list[bytes] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    pages: int = 0

    def add(self, leaves: Leaves, page_size: int) -> None:
        """Take in leaves."""
        self.tables += leaves.tables
        self.starts += leaves.starts
        self.ends += leaves.ends
        self.counts += leaves.counts
        self.pages += sum(leaves.spans) * page_size

    @property
    def elements(self) -> int:
        """Number of elements."""
        return sum(self.counts)

    @property
    def is_full(self) -> bool:
        """Whether it is time to hand it out."""
        return self.pages >= RUN_BYTES or len(self.counts) >= RUN_LEAVES


class Sweep:
    """The leaves of a bucket, or of some of its subtrees, in key order.

    Args:
        bucket: whose leaves.
        visited: pages that count as seen; those of the sweep are added.
        steps: the subtrees; default: all.
        ordered: also prove that keys rise inside the leaves; from leaf to leaf they are always
            proven to.
    """

    def __init__(
        self,
        bucket: Bucket,
        visited: Visited,
        *,
        steps: list[Step] | None = None,
        ordered: bool = False,
    ) -> None:
        self._bucket = bucket
        self._image: Image = bucket.image
        self._visited = visited
        self._steps = bucket.steps() if steps is None else steps
        self._ordered = ordered

    def runs(self) -> Iterator[Run]:
        """Read the leaves.

        Raises:
            DamagedError: the tree is damaged, keys do not rise, or a value is a bucket.
        """
        run = Run()
        stack = self._steps[::-1]
        while stack:
            step = stack.pop()
            page = self._bucket.visit(step, self._visited)
            if page.is_leaf:
                self._add_exactly(run, page, step)
            else:
                below = self._bucket.below(page, step)
                done = 0
                while leaves := self._plain(below, done):
                    run.add(leaves, self._image.page_size)
                    done += len(leaves.counts)
                    if run.is_full:
                        yield run
                        run = Run()
                stack.extend(below.steps(done)[::-1])
            if run.is_full:
                yield run
                run = Run()
        if run.counts:
            yield run

    def _plain(self, branch: Branch, start: int) -> Leaves | None:
        """Prove children of a branch to be plain leaves, from `start` on."""
        numbers = branch.numbers[start : start + RUN_LEAVES]
        after = branch.lows[start + RUN_LEAVES :]
        if not numbers:
            return None
        leaves = prove(
            self._image,
            numbers,
            branch.lows[start : start + RUN_LEAVES],
            after[0] if after else branch.high,
        )
        if leaves is None or (self._ordered and not rising(self._image, leaves)):
            return None
        seen = self._visited.add_all(numbers[: len(leaves.counts)], leaves.spans)
        return leaves if seen else None

    def _add_exactly(self, run: Run, page: Page, step: Step) -> None:
        """Add a leaf whose header is proven, looking at one element after the other."""
        data, owner = self._image.data, self._bucket.owner
        last = None
        end = page.data
        for index, element in enumerate(self._image.elements(page, owner)):
            key = data[element.key : element.value]
            if not step.has(key) or (last is not None and key <= last):
                raise self._image.damaged(
                    f"element {index} of {self._image.place(page, owner)} breaks the order of keys"
                )
            if element.flags:
                raise self._bucket.nested(key, element)
            last, end = key, element.end
        if page.count:
            run.tables.append(data[page.table : page.data])
            run.starts.append(page.data)
            run.ends.append(end)
            run.counts.append(page.count)
        run.pages += page.end - page.start
