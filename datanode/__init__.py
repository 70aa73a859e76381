"""TwinFS."""
