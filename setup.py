"""Builds the Cython core: cext/ in the tree, imported as flux.cext.

FLUX_DEBUG=1      symbols on, no optimisation
FLUX_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer
FLUX_COVERAGE=1   line coverage of .pyx files
FLUX_ANNOTATE=1   cython -a reports under build/c
FLUX_BUILD_JOBS=N how many compilers at once (default: one per CPU)
FLUX_MODULES=…    build only these: paths under cext/ or folders of it, separated by blanks
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

JOBS = int(os.environ.get("FLUX_BUILD_JOBS") or os.cpu_count() or 1)
ROOT = Path(__file__).resolve().parent
LINKS = Path("build/cython/flux")
PACKAGES = ["flux.cext"] + [
    f"flux.cext.{path.parent.relative_to('cext').as_posix().replace('/', '.')}"
    for path in sorted(Path("cext").glob("*/__init__.py"))
]


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def sources() -> list[Path]:
    """Every .pyx, or those that FLUX_MODULES names."""
    chosen = os.environ.get("FLUX_MODULES", "").split()
    every = sorted(Path("cext").rglob("*.pyx"))
    return [path for path in every if not chosen or any(path.is_relative_to(name) for name in chosen)]


def link_sources() -> None:
    """Cython finds a .pxd by its full name, so flux.cext must exist as a folder while it compiles."""
    LINKS.mkdir(parents=True, exist_ok=True)
    (LINKS / "__init__.py").touch()
    link = LINKS / "cext"
    if not link.is_symlink() or link.resolve() != (ROOT / "cext").resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(ROOT / "cext", LINKS.resolve()))


def extensions() -> list[Extension]:
    compile_args = ["-std=gnu11", "-fvisibility=hidden", "-Wno-unused-function", "-Wno-unreachable-code"]
    link_args: list[str] = []
    macros = [("CYTHON_TRACE_NOGIL", "1")] if flag("FLUX_COVERAGE") else []
    if flag("FLUX_DEBUG"):
        compile_args += ["-O0", "-g"]
    else:
        compile_args += ["-O2", "-g1"]
    if flag("FLUX_SANITIZE"):
        compile_args += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
        link_args += ["-fsanitize=address,undefined"]
    return [
        Extension(
            "flux.cext." + ".".join(path.relative_to("cext").with_suffix("").parts),
            [path.as_posix()],
            include_dirs=["cext"],
            depends=[header.as_posix() for header in sorted(Path("cext").rglob("*.h"))],
            define_macros=macros,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
        for path in sources()
    ]


link_sources()
setup(
    options={"build_ext": {"parallel": JOBS}},
    packages=[
        *(p.parent.as_posix().replace("/", ".") for p in sorted(Path("flux").rglob("__init__.py"))),
        *PACKAGES,
    ],
    package_dir={"flux": "flux", "flux.cext": "cext"},
    package_data={"flux": ["py.typed", "admin/web/**/*", "demo/demo.ts"]},
    exclude_package_data={"flux.cext": ["*.pyx", "*.c"]},
    ext_modules=cythonize(
        extensions(),
        build_dir="build/c",
        include_path=["build/cython"],
        annotate=flag("FLUX_ANNOTATE"),
        nthreads=JOBS if JOBS > 1 else 0,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "freethreading_compatible": False,
            "linetrace": flag("FLUX_COVERAGE"),
        },
    ),
)
