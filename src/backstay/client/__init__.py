"""A running etcd: its RPCs, the health of its members, the snapshot stream, a throw-away member."""
