"""Maintenance: one asset for each table, and the sensor that asks for it."""
