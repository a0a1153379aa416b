"""Prove that nothing was lost, repeated or changed between Kafka and Gold."""
