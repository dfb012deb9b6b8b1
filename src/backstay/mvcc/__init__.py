"""What etcd keeps in its bolt file: revisions, leases, HashKV. No network, no process."""
