"""Which pages of a file have been seen: no page may be part of two things.

One set is shared by all walks of a check, so that pages of two buckets can't overlap either.
"""

from backstay.bolt.image import Image, Page


class Visited:
    """Which pages have been seen: one byte a page.

    Args:
        image: the file.

    Attributes:
        seen: 1 for each page that has been.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self.seen = bytearray(image.high_water)

    def add(self, page: Page, owner: str) -> None:
        """Note a page with its overflow.

        Raises:
            DamagedError: one of them has been seen before.
        """
        self.add_pages(page.number, page.overflow + 1, owner)

    def add_pages(self, number: int, span: int, owner: str) -> None:
        """Note pages that follow each other.

        Raises:
            DamagedError: one of them has been seen before.
        """
        if self.seen.find(1, number, number + span) >= 0:
            raise self._image.damaged(
                f"page {number} of {owner} is reached twice, or overlaps another page"
            )
        self.seen[number : number + span] = b"\1" * span

    def merge(self, other: bytes) -> None:
        """Take in what another walk has seen.

        Raises:
            DamagedError: both have seen the same page.
        """
        mine, theirs = (int.from_bytes(seen, "little") for seen in (self.seen, other))
        if both := mine & theirs:
            page = (both.bit_length() - 1) // 8
            raise self._image.damaged(f"page {page} is reached twice")
        self.seen[:] = (mine | theirs).to_bytes(len(self.seen), "little")

    def __contains__(self, number: int) -> bool:
        return bool(self.seen[number])

    def count(self) -> int:
        """How many pages have been seen."""
        return self.seen.count(1)
