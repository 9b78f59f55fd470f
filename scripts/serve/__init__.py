"""Model servers, and asking one from the terminal."""
