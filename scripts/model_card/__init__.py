"""The parts of make_model_card.py: the donors' licenses, what hubs read, what people read."""
