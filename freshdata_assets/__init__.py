"""The Dagster code location: assets, checks and automation of one platform instance."""
