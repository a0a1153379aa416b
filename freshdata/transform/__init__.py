"""Silver and Gold: SQLMesh models over Iceberg tables."""
