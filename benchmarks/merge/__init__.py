"""What an incremental merge into Silver costs, against its peers and as the table grows."""
