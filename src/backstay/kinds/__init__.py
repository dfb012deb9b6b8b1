"""What differs between the kinds of cluster."""
