"""The services the platform runs and uses."""
