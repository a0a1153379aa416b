"""The main job on real data, end to end, with every number checked against the source."""
