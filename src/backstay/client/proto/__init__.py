"""etcd's messages, generated from rpc.proto by `make proto`."""
