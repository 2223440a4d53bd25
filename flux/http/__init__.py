"""Media over HTTP: FLV and MPEG-TS as endless responses or WebSockets, HLS playlists and segments."""
