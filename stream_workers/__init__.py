"""Stream workers: Kafka to Bronze, exactly once."""
