"""Applying a restore, following it, and proving what came of it."""
