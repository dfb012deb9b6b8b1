"""Stopping what writes to a control plane's etcd, and putting back what was."""
