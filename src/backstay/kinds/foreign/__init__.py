"""Backups that other tools made: found, held to what they should be, and taken in."""
