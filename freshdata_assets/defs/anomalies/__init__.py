"""Checks that learn from the days before what a day is like."""
