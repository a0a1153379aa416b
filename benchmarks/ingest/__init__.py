"""Measures how fast events get from Kafka into Iceberg: this project's worker, its peers, and the floor below them."""
