"""Silver and Gold."""
