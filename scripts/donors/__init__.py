"""The two donor models: fetched, and recorded in a manifest with the sha256 of each file and tensor."""
