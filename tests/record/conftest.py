"""What the tests of the recorder share with those of the flows."""

from flows.conftest import bench

__all__ = ["bench"]
