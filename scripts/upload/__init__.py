"""What makes a checkpoint ready to be published: its model card, and the check that it stands alone."""
