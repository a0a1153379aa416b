"""Change data capture: databases whose tables are followed, through Debezium."""
