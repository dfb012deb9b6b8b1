"""The Kubernetes API: objects, access reviews, exec and port-forward. Knows no kind of cluster."""
