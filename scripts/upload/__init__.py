"""Makes a checkpoint ready to be published: its model card, and the check that it works without this repository."""
