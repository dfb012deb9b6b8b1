"""The way to a hosted etcd: its Service, a port-forward, or exec in its pods."""
