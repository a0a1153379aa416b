"""The event gateway: the HTTP door to Kafka. It takes what the stream's worker would take, and refuses the rest."""
