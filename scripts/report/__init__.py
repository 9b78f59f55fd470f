"""The parts of make_report.py: reading and checking the inputs, what they say, curves, gallery, page."""
