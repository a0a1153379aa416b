"""How many events the event gateway takes on one core."""
