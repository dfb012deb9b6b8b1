"""A running etcd: its RPCs, the health of its members, the snapshot stream, a throw-away member."""

import os

# gRPC writes each failed handshake to standard error, past every handler. Its words reach the
# reader in the error that is raised. The variable counts when grpc is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
