"""Hosted control planes (HyperShift): what differs from any other etcd."""
