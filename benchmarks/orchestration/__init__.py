"""What Dagster costs before it does anything: loading the code location, and the ticks of its sensors."""
