"""Kubernetes inside etcd, offline: where objects lie, how they are stored, encryption at rest."""
