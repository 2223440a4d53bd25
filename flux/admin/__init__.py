"""The admin process: API, web page, metrics, health."""
