"""How fresh Gold is when Dagster brings the news there."""
