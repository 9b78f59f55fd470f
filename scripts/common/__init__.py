"""What more than one program needs."""
