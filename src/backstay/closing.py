"""What is closed at the end of a block, whatever ends it."""

from typing import Self


class Closing:
    """A context manager that closes itself; `close` may be called more than once."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is held."""
        raise NotImplementedError
