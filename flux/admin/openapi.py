"""The API's description, OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from flux._version import __version__

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_TIME: Schema = {"type": "string", "format": "date-time"}


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _map(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_SCHEMAS: dict[str, Schema] = {
    "Error": _object(
        {
            "error": _described(_STRING, "a word for programs"),
            "status": _INTEGER,
            "message": _described(_STRING, "what was wrong"),
            "cure": _described(_STRING, "what to do"),
        },
        "error",
        "status",
        "message",
        "cure",
    ),
    "Track": _object(
        {
            "kind": {"enum": ["video", "audio", "data"]},
            "codec": _described(_STRING, "H264, H265, AAC, …"),
            "pid": _described(_INTEGER, "PID in an MPEG-TS source"),
            "width": _INTEGER,
            "height": _INTEGER,
            "fps": _described(_NUMBER, "as the stream declares it; 0: it does not"),
            "channels": _INTEGER,
            "sample_rate": _described(_INTEGER, "Hz"),
            "profile": _INTEGER,
            "level": _INTEGER,
            "frames": _described(_INTEGER, "access units since the publisher came"),
            "keyframes": _INTEGER,
            "bytes": _INTEGER,
            "errors": _described(_INTEGER, "access units found broken"),
        },
        "kind",
        "codec",
    ),
    "Stream": _object(
        {
            "name": _STRING,
            "state": _described({"enum": ["live", "idle"]}, "idle: the publisher's return is waited for"),
            "protocol": _described(_STRING, "of the publisher: srt, demo"),
            "session": _described({}, "the publisher's session"),
            "worker": _nullable(_INTEGER),
            "since": _described(_nullable(_TIME), "when the present publisher came"),
            "uptime_s": _nullable(_INTEGER),
            "bitrate_bps": _nullable(_NUMBER),
            "fps": _described(_nullable(_NUMBER), "as measured"),
            "viewers": _INTEGER,
            "bytes_in": _INTEGER,
            "publishers": _described(_INTEGER, "publishers so far; a reconnect makes two"),
            "ts_errors": _INTEGER,
            "discontinuities": _INTEGER,
            "tracks": _list(_ref("Track")),
            "play": _described(_map(_STRING), "URLs by format: flv, ws_flv, ts, hls, srt"),
        },
        "name",
        "state",
        "viewers",
        "tracks",
        "play",
    ),
    "Session": _object(
        {
            "id": _STRING,
            "stream": _STRING,
            "protocol": _described(_STRING, "srt, http-flv, ws-flv, http-ts, ws-ts, hls, demo"),
            "role": {"enum": ["publish", "read"]},
            "peer": _described(_STRING, "ip:port"),
            "worker": _INTEGER,
            "since": _TIME,
            "bytes": _described(_INTEGER, "media bytes so far"),
            "bitrate_bps": _nullable(_NUMBER),
        },
        "id",
        "stream",
        "protocol",
        "role",
        "peer",
    ),
    "Relay": _object(
        {
            "name": _STRING,
            "direction": {"enum": ["pull", "push"]},
            "start": {"enum": ["always", "on_demand"]},
            "stream": _described(_STRING, "the stream's name here"),
            "url": _described(_STRING, "the other server, without what is secret"),
            "state": {"enum": ["waiting", "connecting", "connected", "backing_off"]},
            "since": _described(_TIME, "of the state"),
            "attempts": _described(_INTEGER, "to connect, since it was begun"),
            "last_error": _described(_STRING, "what went wrong last, and what to do"),
            "worker": _INTEGER,
            "figures": _described({"type": "object"}, "of the connection, as a session has them"),
        },
        "name",
        "direction",
        "stream",
        "url",
        "state",
    ),
    "Process": _object(
        {
            "name": _STRING,
            "number": _INTEGER,
            "pid": _INTEGER,
            "state": _STRING,
            "restarts": _INTEGER,
            "heartbeat_age_ms": _INTEGER,
            "sessions": _INTEGER,
        },
        "name",
        "state",
    ),
    "Status": _object(
        {
            "version": _STRING,
            "state": {"enum": ["running", "draining"]},
            "since": _TIME,
            "uptime_s": _NUMBER,
            "pid": _INTEGER,
            "listeners": _described(_map(_STRING), "srt, http, admin: ip:port, or empty"),
            "processes": _list(_ref("Process")),
            "arena": _object({"slots": _INTEGER, "used": _INTEGER, "memory_bytes": _INTEGER}),
            "publish": _described(_map(_STRING), "URL by protocol at which live/cam1 would be published"),
        },
        "version",
        "state",
        "listeners",
        "processes",
    ),
    "Stats": _object(
        {
            "counters": _described(_map(_INTEGER), "each counter, summed over the processes"),
            "processes": _described(_map(_map(_INTEGER)), "the same by process"),
        },
        "counters",
        "processes",
    ),
}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _query(name: str, schema: Schema, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _STRING, "description": description}


def _get(summary: str, schema: Schema, *parameters: dict[str, Any], missing: str = "") -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": summary, "content": _json(schema)}}
    if missing:
        responses["404"] = {"description": missing, "content": _json(_ref("Error"))}
    responses["503"] = {"description": "the supervisor does not answer", "content": _json(_ref("Error"))}
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _text(summary: str, *unready: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": _STRING}}
    responses = {"200": {"description": summary, "content": content}}
    for text in unready:
        responses["503"] = {"description": text, "content": content}
    return {"get": {"summary": summary, "responses": responses}}


def document() -> dict[str, Any]:
    """The whole description as JSON types."""
    kick = {
        "summary": "End a session",
        "parameters": [
            _path("id", "the session's id"),
            {
                "name": "X-Flux-Request",
                "in": "header",
                "schema": _STRING,
                "description": "any value; needed from programs, which send no Origin header",
            },
        ],
        "responses": {
            "200": {"description": "it was told to end", "content": _json(_object({"kicked": _INTEGER}))},
            "403": {"description": "another site's page, or no header", "content": _json(_ref("Error"))},
            "404": {"description": "there is no such session", "content": _json(_ref("Error"))},
        },
    }
    sessions = _object({"sessions": _list(_ref("Session")), "total": _INTEGER}, "sessions", "total")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flux",
            "version": __version__,
            "description": "A live-media server. Errors are JSON objects: what was wrong, and what to do.",
        },
        "paths": {
            "/api/v1/status": _get("State, listeners and processes", _ref("Status")),
            "/api/v1/stats": _get("All counters", _ref("Stats")),
            "/api/v1/streams": _get(
                "The streams that are there", _object({"streams": _list(_ref("Stream"))})
            ),
            "/api/v1/streams/{name}": _get(
                "One stream", _ref("Stream"), _path("name", "such as live/cam1"), missing="no such stream"
            ),
            "/api/v1/sessions": _get(
                "Publishers and players",
                sessions,
                _query("stream", _STRING, "only those of this stream"),
                _query("offset", _INTEGER, "leave out so many"),
                _query("limit", _INTEGER, "give at most so many"),
            ),
            "/api/v1/sessions/{id}": {"delete": kick},
            "/api/v1/relays": _get(
                "Streams taken from other servers and given to them",
                _object({"relays": _list(_ref("Relay"))}, "relays"),
            ),
            "/api/v1/openapi.json": _get("This description", {"type": "object"}),
            "/metrics": _text("Metrics in Prometheus' text format"),
            "/healthz": _text("The admin process answers"),
            "/readyz": _text("All processes run", "the server drains, or a process is missing"),
        },
        "components": {"schemas": _SCHEMAS},
    }
