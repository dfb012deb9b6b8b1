"""What belongs to a backup beside its snapshots: keys, Secrets and other objects."""
