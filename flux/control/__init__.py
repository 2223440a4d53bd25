"""Clients of the control socket."""
