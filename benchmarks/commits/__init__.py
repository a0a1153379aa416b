"""Whether a commit costs the same after ten thousand others."""
