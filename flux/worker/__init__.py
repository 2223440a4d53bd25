"""A worker's life: its loop, its sessions, the streams it owns."""
