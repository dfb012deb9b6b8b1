"""Recording: all changes of an etcd, from a watch, sealed as deltas until somebody stops it."""
