"""Training of one stage by ms-swift: start, resume, proof, export."""
