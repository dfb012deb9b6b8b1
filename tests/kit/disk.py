"""Small disks that can be filled: a tmpfs of a few pages, where this machine lets us mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096


@contextmanager
def small(path: Path, size: int) -> Iterator[Path]:
    """Mount a filesystem of so many bytes at a new directory, for the block."""
    path.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        message = f"no small disk can be mounted here: {done.stderr.strip()[:100]}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Write a file that leaves so many bytes free, rounded down to pages; gives its path."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    facts = os.statvfs(folder)
    size = facts.f_bavail * facts.f_frsize - leave
    with ballast.open("wb") as file:
        # Not fallocate: a filesystem may count pages that are allocated and pages that are full.
        for _ in range(max(size, 0) // PAGE):
            file.write(b"x" * PAGE)
    return ballast


def is_full(folder: Path) -> bool:
    """Whether no page is free."""
    return os.statvfs(folder).f_bavail == 0
