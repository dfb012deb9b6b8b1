"""What etcd keeps in its bolt file: snapshots, revisions, leases, HashKV. No network, no process."""
