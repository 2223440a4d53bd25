"""The command `flux`. Modules are imported when their command is run, so that each starts quickly."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from flux._version import __version__
from flux.errors import FluxError

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Bad input is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"flux: {message}; see `{self.prog} --help`\n")


class _Commands:
    """Adds commands to a parser, each with what implements it as "module:function"."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser, required=True)

    def add(self, name: str, run: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
        parser = self._subparsers.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(run=run)
        return parser

    def control(self, name: str, run: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
        """A command that talks to a running server."""
        parser = self.add(name, run, text, epilog)
        parser.add_argument(
            "--socket",
            default=os.environ.get("FLUX_SOCKET", ""),
            metavar="PATH",
            help="the server's control socket; $FLUX_SOCKET by default",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        return parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="flux", description="A live-media server.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"flux {__version__}")
    commands = _Commands(parser)
    _add_server(commands)
    _add_media(commands)
    _add_operation(commands)
    return parser


def _add_server(commands: _Commands) -> None:
    serve = commands.add("serve", "flux.cli.server:serve", "run the server")
    check = commands.add("check", "flux.cli.server:check", "check a configuration, and tell what it comes to")
    for parser in (serve, check):
        parser.add_argument("--config", metavar="FILE", help="YAML, TOML or JSON; without it, the defaults")
        parser.add_argument(
            "--set",
            dest="overrides",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a setting, as in --set http.listen=127.0.0.1:8080",
        )
    serve.add_argument("--demo", action="store_true", help="publish a test picture as live/demo")
    check.add_argument("--json", action="store_true", help="print every setting as JSON")


def _add_media(commands: _Commands) -> None:
    publish = commands.add(
        "publish",
        "flux.cli.media:publish",
        "publish an MPEG-TS file over SRT, at the pace at which it plays",
        "example: flux publish clip.ts 'srt://127.0.0.1:8890?streamid=publish:live/cam1' --loop",
    )
    publish.add_argument("file", metavar="FILE", help="MPEG-TS")
    publish.add_argument(
        "url",
        metavar="URL",
        help="srt://HOST:PORT?streamid=publish:NAME; and &passphrase=…, &pbkeylen=16, 24 or 32 to encrypt it",
    )
    publish.add_argument("--loop", action="store_true", help="begin again at its end, as one endless stream")
    publish.add_argument(
        "--duration", type=_seconds, default=None, metavar="S", help="stop after so many seconds"
    )
    play = commands.add(
        "play",
        "flux.cli.media:play",
        "take a stream and write its bytes to a file or to standard output",
        "example: flux play http://127.0.0.1:8080/live/demo.flv | ffplay -",
    )
    play.add_argument(
        "url",
        metavar="URL",
        help="srt://…?streamid=read:NAME, &passphrase=… if it is encrypted; http(s)://… to .flv, .ts, .m3u8",
    )
    play.add_argument(
        "-o", dest="output", default="-", metavar="FILE", help="-: standard output, the default"
    )
    probe = commands.add(
        "probe",
        "flux.cli.media:probe",
        "tell what is in a file or a stream: codecs, resolution, frame rate, bitrate",
    )
    probe.add_argument("source", metavar="URL|FILE", help="an MPEG-TS or FLV file, or what `flux play` takes")
    probe.add_argument("--json", action="store_true", help="print JSON")
    play.add_argument(
        "--duration", type=_seconds, default=None, metavar="S", help="stop after so many seconds"
    )
    probe.add_argument(
        "--duration", type=_seconds, default=3.0, metavar="S", help="seconds of a live stream to look at (3)"
    )


def _add_operation(commands: _Commands) -> None:
    commands.control("status", "flux.cli.operate:status", "tell how the server and its processes are")
    commands.control("streams", "flux.cli.operate:streams", "list the streams")
    sessions = commands.control("sessions", "flux.cli.operate:sessions", "list publishers and players")
    sessions.add_argument("--stream", metavar="NAME", help="only those of this stream")
    commands.control("relays", "flux.cli.operate:relays", "list the relays from and to other servers")
    stats = commands.control("stats", "flux.cli.operate:stats", "print the counters that are not zero")
    stats.add_argument("--all", action="store_true", help="and those that are zero")
    kick = commands.control("kick", "flux.cli.operate:kick", "end a session")
    kick.add_argument("id", metavar="ID", help="as `flux sessions` shows it")
    commands.control("reload", "flux.cli.operate:reload", "read the configuration file again")
    commands.control("drain", "flux.cli.operate:drain", "take nothing new, and stop when all have gone")
    commands.control("stop", "flux.cli.operate:stop", "stop now")
    commands.control(
        "version", "flux.cli.operate:version", "print the versions of this command and of the server"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program's name; None: sys.argv); gives the exit code.

    0: done; 1: it failed; 2: bad input. What was wrong is one line on standard error.
    """
    args = build_parser().parse_args(argv)
    module, _, function = args.run.partition(":")
    try:
        code: int = getattr(importlib.import_module(module), function)(args)
        sys.stdout.flush()
    except FluxError as error:
        print(f"flux: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; don't let the interpreter complain of it at its end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return code
