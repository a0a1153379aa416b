"""Daily closes of Gold."""
