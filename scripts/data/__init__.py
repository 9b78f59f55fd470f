"""Training rows: prepared from the sources, and checked before anything is trained."""
