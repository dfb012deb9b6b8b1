"""Backstay backs up etcd and proves that the backups restore."""

__version__ = "0.1.0"
