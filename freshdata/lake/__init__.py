"""The Iceberg lake: its catalog, commits, progress, cursors and queries."""
