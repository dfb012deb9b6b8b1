"""Where backups lie: stores, sealing, manifests and the catalogue of them."""
