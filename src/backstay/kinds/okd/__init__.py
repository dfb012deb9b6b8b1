"""OKD and OpenShift control planes: what differs from any other etcd."""
