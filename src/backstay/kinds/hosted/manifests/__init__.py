"""Manifests that restore: read, completed, compared and held to the rules. No network."""
