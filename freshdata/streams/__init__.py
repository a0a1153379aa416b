"""From real data to a stream: what its events look like is inferred, and its contract and models are written."""
