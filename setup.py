"""The extension modules of the compiled side and their flags. Everything else is in pyproject.toml.

They share C code through cimport: `kernels` alone links the table of kernels, `team` the threads.
"""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ISAS = ("reference", "baseline", "avx2", "avx512", "neon", "blas")
C_SOURCES = {
    "team": ["src/team.c", "src/watch.c"],
    "memory": ["src/block.c"],
    "data": ["src/lift.c"],
    "kernels": ["src/arch.c", *(f"src/kernels/{name}.c" for name in ISAS)],
}
HEADERS = [
    path.as_posix() for path in sorted(Path("src").rglob("*")) if path.suffix in (".h", ".inc")
]

# Compiled for size, since no product waits for them: what is called once a plan or a product, and
# the tables for processors without AVX2.
SMALL = {"probe", "vectors", "data", "memory", "layout", "shapes", "plan"}
SMALL |= {"baseline", "reference"}
SMALL |= {"fastcurv/_engine/kernels", "fastcurv/_engine/team"}  # not the C of these names

macros = (
    [("FC_NO_VECTORS", "1")] if os.environ.get("FASTCURV_NO_VECTORS") else []
)  # as if the compiler had no vectors
if sys.platform == "win32":
    compile_args, link_args, counters = ["/O2", "/std:c11"], [], []
else:
    # No -ffast-math and no -march: instruction sets are chosen by target regions in the sources, at
    # import time.
    compile_args = [
        "-std=gnu11",
        "-O3",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffp-contract=fast",
        "-pthread",
    ]
    link_args = ["-pthread"]
    if os.environ.get("FASTCURV_SANITIZE"):
        flags = [f"-fsanitize={os.environ['FASTCURV_SANITIZE']}", "-fno-omit-frame-pointer", "-g"]
        compile_args += [*flags, "-O1"]  # -O3 takes several times as long to build, and finds less
        link_args += flags
    # counters in the C, not in what Cython makes
    counters = ["--coverage", "-O1"] if os.environ.get("FASTCURV_COVERAGE") else []


class Build(build_ext):
    """Sources are compiled side by side; what goes into a wheel names no folder and no symbol that
    nobody asks for, so that two builds of one commit are the same bytes.
    """

    def build_extensions(self):
        if self.compiler.compiler_type == "unix":
            one_by_one = self.compiler.compile

            def compile(sources, **options):
                def sized(source):
                    more = list(options.get("extra_postargs") or [])
                    path = Path(source).with_suffix("")
                    small = path.name in SMALL or "/".join(path.parts[-3:]) in SMALL
                    more += ["-Os"] if small else []
                    return {**options, "extra_postargs": more}

                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    parts = pool.map(lambda source: one_by_one([source], **sized(source)), sources)
                    return [name for part in parts for name in part]

            self.compiler.compile = compile
        elif shutil.which("clang-cl"):  # cl itself knows no vector extensions
            self.compiler.initialize()
            self.compiler.cc = shutil.which("clang-cl")
        for_wheel = "bdist_wheel" in self.distribution.command_obj
        if for_wheel and sys.platform != "win32" and not os.environ.get("FASTCURV_SANITIZE"):
            for extension in self.extensions:
                extension.extra_compile_args += ["-g0", f"-ffile-prefix-map={Path.cwd()}=."]
                # tables for exceptions, which C has none of
                extension.extra_compile_args += [
                    "-fno-unwind-tables",
                    "-fno-asynchronous-unwind-tables",
                ]
                extension.extra_link_args.append(
                    "-Wl,-x" if sys.platform == "darwin" else "-Wl,--strip-all"
                )
        if for_wheel and sys.platform == "linux":
            for extension in self.extensions:
                extension.define_macros.append(("FC_OLD_GLIBC", "1"))
                if extension.name.endswith(".team"):  # where those names are before glibc 2.34
                    extension.extra_link_args += ["-Wl,--no-as-needed", "-l:libpthread.so.0"]
        super().build_extensions()


modules = [
    Extension(
        f"fastcurv._engine.{path.stem}",
        sources=[path.as_posix(), *C_SOURCES.get(path.stem, ())],
        depends=HEADERS,
        include_dirs=["src"],
        define_macros=macros,
        extra_compile_args=compile_args + counters * (path.stem in C_SOURCES),
        extra_link_args=link_args + counters * (path.stem in C_SOURCES),
    )
    for path in sorted(Path("fastcurv/_engine").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(modules, language_level=3, build_dir="build/cython"),
    cmdclass={"build_ext": Build},
)
