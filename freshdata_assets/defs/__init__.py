"""Definitions, one folder for each concern."""
