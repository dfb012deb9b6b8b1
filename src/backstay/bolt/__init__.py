"""The bolt file: read, checked and written page by page. Knows nothing of etcd."""
