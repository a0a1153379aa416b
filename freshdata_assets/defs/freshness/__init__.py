"""Event-time freshness."""
