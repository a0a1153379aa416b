"""Checks of the columns of the tables that the workers write."""
