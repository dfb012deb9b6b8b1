"""The procedures that all kinds of cluster share: backup, verify, export, restore, drill."""
