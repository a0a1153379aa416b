"""What the stream workers write."""
