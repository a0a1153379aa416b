"""Serving views."""
