"""What a selective query no longer reads once a table is compacted and clustered."""
