"""Configuration: its schema, where it is read from, and what can be changed while running."""
