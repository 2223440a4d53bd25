"""SRT: stream ids, who may publish and play, clients, relays."""
