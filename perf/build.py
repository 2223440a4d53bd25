"""Compiles the load programs of perf/native into perf/out: C programs, and the Cython loops of `ring`."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "perf" / "native"
OUT = ROOT / "perf" / "out"
CFLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]
LIBRARIES = {"srt_send": ["-lsrt"], "srt_receive": ["-lsrt"], "stamp_send": ["-lsrt"]}
NEEDS = {"-lsrt": ("/usr/include/srt/srt.h", "libsrt-openssl-dev")}


class BuildError(RuntimeError):
    """A load program can't be compiled; says what is missing."""


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")


def _older(target: Path, sources: list[Path]) -> bool:
    return not target.exists() or target.stat().st_mtime < max(path.stat().st_mtime for path in sources)


def binary(name: str) -> Path:
    """The path of the C program `name`, compiled if its source is newer. Raises BuildError."""
    target = OUT / "bin" / name
    source = NATIVE / f"{name}.c"
    if _older(target, [source, *NATIVE.glob("*.h")]):
        for library in LIBRARIES.get(name, []):
            header, package = NEEDS[library]
            if not Path(header).exists():
                raise BuildError(f"{header} is missing; install the package {package}")
        if shutil.which("gcc") is None:
            raise BuildError("gcc is missing; install the package gcc")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".new")
        _run(["gcc", *CFLAGS, "-o", str(unfinished), str(source), *LIBRARIES.get(name, []), "-lpthread"])
        unfinished.rename(target)
    return target


def ring_loops() -> ModuleType:
    """The Cython module perf/native/ring_loops.pyx, built against the ring in the tree."""
    target = OUT / f"ring_loops{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = NATIVE / "ring_loops.pyx"
    if _older(target, [source, ROOT / "cext" / "ring.pxd", ROOT / "cext" / "arena.pxd"]):
        OUT.mkdir(parents=True, exist_ok=True)
        generated = OUT / "ring_loops.c"
        cython = [sys.executable, "-m", "cython", "-3", "-I", str(ROOT / "build" / "cython")]
        _run([*cython, "-o", str(generated), str(source)])
        includes = [f"-I{sysconfig.get_paths()['include']}", f"-I{ROOT / 'cext'}"]
        flags = ["-shared", "-fPIC", "-O2", "-w", "-std=gnu11"]
        _run(["gcc", *flags, *includes, "-o", str(target), str(generated)])
    spec = importlib.util.spec_from_file_location("ring_loops", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
