"""Every setting: its name, default and bounds. Each number that bounds something in Flux is one of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
)

from flux.config.secrets import shown_url

Milliseconds = Annotated[int, Field(ge=0, le=86_400_000)]
K_MAX_RELAYS = 1000
K_BETWEEN_PROCESSES = {"secrets": True}


def _serialized(secret: SecretStr, info: SerializationInfo) -> str:
    """Asterisks, unless another process of ours is to have it."""
    return secret.get_secret_value() if info.context == K_BETWEEN_PROCESSES else str(secret)


def _serialized_url(url: str, info: SerializationInfo) -> str:
    return url if info.context == K_BETWEEN_PROCESSES else shown_url(url)


Secret = Annotated[SecretStr, PlainSerializer(_serialized, when_used="json")]
SecretUrl = Annotated[str, PlainSerializer(_serialized_url, when_used="json")]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values don't change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ArenaSettings(Section):
    """Shared memory: how many streams there may be, and how large their rings are."""

    streams: int = Field(1024, ge=1, le=65536)
    """Streams that can be live at once."""
    frame_ring_bytes: int = Field(8 << 20, ge=64 << 10, le=1 << 32)
    """Ring of access units, a power of two."""
    wire_ring_bytes: int = Field(8 << 20, ge=64 << 10, le=1 << 32)
    """Ring of each wire format, a power of two."""
    hls_bytes: int = Field(512 << 20, ge=1 << 20, le=1 << 36)
    """Address space for a stream's HLS segments, a power of two; pages are used only as bytes come."""
    index_entries: int = Field(1 << 14, ge=64, le=1 << 22)
    """Records in a ring's index, a power of two."""


class StreamSettings(Section):
    """Streams and those who wait for them."""

    idle_grace_ms: Milliseconds = 10_000
    """How long players are held after their publisher has gone."""
    wait_ms: Milliseconds = 10_000
    """How long a player that comes before its publisher waits."""
    format_linger_ms: Milliseconds = 10_000
    """How long a wire format is still made after its last player has gone."""
    max_waiting: int = Field(10_000, ge=0)
    """Players of a worker that may wait for a publisher."""


class SrtSettings(Section):
    """SRT: publishing and playing."""

    listen: str = "0.0.0.0:8890"
    """Address and port, or empty: no SRT."""
    latency_ms: int = Field(120, ge=0, le=60_000)
    """Least latency of TSBPD, each way; the larger of both sides' counts."""
    peer_idle_timeout_ms: Milliseconds = 5000
    """A peer that is silent for so long is gone."""
    handshake_timeout_ms: Milliseconds = 3000
    """A handshake is given up after this."""
    flow_window_pkts: int = Field(25_600, ge=32, le=1 << 20)
    """Packets that may be unacknowledged."""
    receive_buffer_pkts: int = Field(8192, ge=32, le=1 << 20)
    """Packets that a connection keeps while gaps are filled."""
    send_buffer_pkts: int = Field(8192, ge=32, le=1 << 20)
    """Packets that a connection keeps for retransmission."""
    max_connections: int = Field(4096, ge=1, le=65536)
    """Connections of one worker."""
    max_handshakes: int = Field(1024, ge=1, le=65536)
    """Handshakes of one worker that wait for a decision."""
    max_overhead_percent: int = Field(25, ge=5, le=100)
    """Bandwidth for retransmissions, in percent of the stream's."""
    max_buffer_bytes: int = Field(1 << 30, ge=1 << 20)
    """Packet bytes that all connections of one worker may keep."""
    ack_interval_ms: int = Field(10, ge=10, le=100)
    """A receiver acknowledges this often; more than SRT's 10 makes many slow publishers cheaper."""
    poll_interval_us: int = Field(2000, ge=0, le=100_000)
    """Under load the socket is read this often, or less while nothing is lost; 0: at each datagram."""
    play_interval_ms: int = Field(20, ge=1, le=1000)
    """Players are sent what a stream gained this often; fewer than 8 packets wait for one more interval."""
    socket_buffer_bytes: int = Field(8 << 20, ge=64 << 10)
    """Kernel buffers of the UDP socket, as far as the kernel grants them."""
    passphrase: Secret = SecretStr("")
    """Encrypts streams that have no other passphrase, 10 to 80 bytes; empty: they are not encrypted."""
    passphrases: dict[str, Secret] = {}
    """Passphrases by stream: the first pattern that fits counts, * is anything; "" leaves it in the clear."""
    enforced_encryption: bool = True
    """Refuse callers without the right passphrase; otherwise they connect, and can't read or be read."""
    pbkeylen: int = Field(0, ge=0, le=32)
    """Bytes of the key that callers are told to take: 16, 24 or 32; 0 leaves it to them."""
    crypto_mode: Literal["auto", "ctr", "gcm"] = "auto"
    """Cipher: AES-CTR, or AES-GCM, which also notices tampering; auto leaves it to callers."""
    km_refresh_rate_pkts: int = Field(1 << 24, ge=3, le=1 << 30)
    """Packets sent with one key."""
    km_preannounce_pkts: int = Field(1 << 12, ge=1, le=1 << 29)
    """So many packets before its use the next key is announced; less than half of km_refresh_rate_pkts."""
    max_key_exchanges: int = Field(200, ge=1, le=100_000)
    """Encrypted handshakes that a worker begins in a second; each costs it about two milliseconds."""


class HttpSettings(Section):
    """Media over HTTP: FLV, MPEG-TS, HLS."""

    listen: str = "0.0.0.0:8080"
    """Address and port, or empty: no media over HTTP."""
    write_interval_ms: int = Field(20, ge=0, le=10_000)
    """Players are written to this often; 0: at each commit."""
    max_connections: int = Field(20_000, ge=1)
    """Connections of one worker, players included."""
    max_header_bytes: int = Field(16_384, ge=1024, le=1 << 20)
    """A request's line and headers."""
    request_timeout_ms: Milliseconds = 10_000
    """A request must have come, or a response be taken, in this time."""
    keepalive_ms: Milliseconds = 30_000
    """How long a connection may rest between requests."""
    cors_origin: str = "*"
    """Access-Control-Allow-Origin; empty: none."""
    slow_player_ms: Milliseconds = 10_000
    """A player that takes no byte for so long is closed."""
    socket_buffer_bytes: int = Field(0, ge=0)
    """SO_SNDBUF of a player; 0: the kernel's own."""
    unsent_bytes: int = Field(512 << 10, ge=0)
    """Bytes that the kernel may hold back for a player whose network is slow; 0: as many as it likes."""
    max_lag_ms: Milliseconds = 10_000
    """A player further behind is moved on to the newest keyframe; 0: only when its ring is nearly used up."""


class HlsSettings(Section):
    """HLS segments and their viewers."""

    segment_ms: int = Field(2000, ge=200, le=60_000)
    """Segments are cut at the first keyframe after this."""
    max_segment_ms: int = Field(10_000, ge=500, le=120_000)
    """A segment without a keyframe is cut after this."""
    playlist_segments: int = Field(6, ge=3, le=48)
    """Segments that a playlist lists; a few more are kept."""
    linger_ms: Milliseconds = 30_000
    """Segments are still made for so long after the last request."""
    always: bool = False
    """Make segments of every stream, wanted or not."""
    max_viewers: int = Field(10_000, ge=0)
    """Viewers of one worker that are told apart and counted."""
    viewer_timeout_ms: Milliseconds = 15_000
    """A viewer who asks for nothing for so long is gone."""


class AdminSettings(Section):
    """API, web page, metrics and health."""

    listen: str = "127.0.0.1:8081"
    """Address and port of API and web page, or empty: none."""
    hosts: tuple[str, ...] = ()
    """Names at which it may be asked for besides this machine's own, such as a proxy's."""


class ControlSettings(Section):
    """The socket that the command line talks to."""

    socket: str = ""
    """Path of the control socket; empty: /run/flux/control.sock, else $XDG_RUNTIME_DIR/flux/control.sock."""
    max_clients: int = Field(64, ge=1)
    """Connections to the control socket at once."""
    timeout_ms: Milliseconds = 5000
    """A worker must have answered the supervisor in this time."""


class LogSettings(Section):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is less grave is not logged."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else JSON lines."""
    file: str = ""
    """Path of the log file, which USR1 opens anew; empty: standard error."""


class SupervisorSettings(Section):
    """Starting, watching and ending processes."""

    heartbeat_timeout_ms: int = Field(5000, ge=200, le=600_000)
    """A process whose heartbeat is older is killed."""
    boot_timeout_ms: int = Field(30_000, ge=200, le=600_000)
    """A process that is not ready after this is killed."""
    respawn_delay_ms: Milliseconds = 0
    """Before a process that died is started again."""
    respawn_max_delay_ms: Milliseconds = 10_000
    """The delay doubles up to this while a process keeps dying."""
    stable_ms: Milliseconds = 5000
    """A process that lived for so long is not in a crash loop."""
    drain_timeout_ms: Milliseconds = 10_000
    """Sessions may go on for so long after TERM."""
    stop_timeout_ms: Milliseconds = 3000
    """A process that was told to stop is killed after this."""
    reload_timeout_ms: int = Field(10_000, ge=100, le=600_000)
    """The configuration must have been read again in this time."""


class DemoSettings(Section):
    """A test picture with sound."""

    enabled: bool = False
    """Publish a test picture."""
    stream: str = "live/demo"
    """The name it is published under."""


class RelaySettings(Section):
    """A stream that is taken from another server, or given to one."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._~-]+$")
    """What the relay is called."""
    url: SecretUrl = Field(max_length=2048, repr=False)
    """The other server, as srt://host:port?streamid=…&latency=…&passphrase=…"""
    stream: str
    """The stream's name here, as live/cam1."""
    direction: Literal["pull", "push"]
    """pull takes it from there, push gives it there."""
    start: Literal["always", "on_demand"] = "always"
    """on_demand: a pull connects when the first player asks for the stream."""
    on_demand_linger_ms: Milliseconds = 10_000
    """Without viewers for so long, an on-demand pull disconnects."""
    retry_min_ms: int = Field(500, ge=10, le=3_600_000)
    """Bound of the random wait after a failure; it doubles with each one that follows."""
    retry_max_ms: int = Field(30_000, ge=10, le=86_400_000)
    """The bound grows up to this."""
    stable_ms: Milliseconds = 10_000
    """A connection that held for so long makes the next wait a short one again."""


class Config(Section):
    """The whole configuration."""

    workers: int = Field(0, ge=0, le=56)
    """Worker processes; 0: one a CPU."""
    pin_workers: bool = True
    """Pin each worker to a CPU."""
    cpus: tuple[int, ...] = ()
    """CPUs that workers are pinned to, in turn; empty: those that the supervisor may use."""
    arena: ArenaSettings = ArenaSettings()
    streams: StreamSettings = StreamSettings()
    srt: SrtSettings = SrtSettings()
    http: HttpSettings = HttpSettings()
    hls: HlsSettings = HlsSettings()
    admin: AdminSettings = AdminSettings()
    control: ControlSettings = ControlSettings()
    log: LogSettings = LogSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    demo: DemoSettings = DemoSettings()
    relays: Annotated[tuple[RelaySettings, ...], Field(max_length=K_MAX_RELAYS)] = ()
    """Streams that are taken from other servers, or given to them; each has these settings:"""

    def between_processes(self) -> str:
        """JSON with all secrets in it, for model_validate_json in another process of ours."""
        return self.model_dump_json(context=K_BETWEEN_PROCESSES)
