"""Checks between Silver and Gold."""
