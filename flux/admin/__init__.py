"""The admin process: API, web page, metrics and health over HTTP."""
