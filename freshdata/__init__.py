"""FreshData: from a data contract to exactly-once ingestion, Iceberg layers, checks and freshness."""
