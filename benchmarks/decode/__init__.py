"""What it costs to decode events in each of the forms that producers may use."""
