"""One module a question about a backup. A check takes what it asks about and finds nothing."""
