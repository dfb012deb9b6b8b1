"""`backstay timeline`: what can be restored, and what can't."""
