"""The one extension module of the compiled side, and its flags. Everything else is in
pyproject.toml.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython import __version__ as cython_version
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ISAS = ("reference", "baseline", "avx2", "avx512", "neon", "blas")
CORE = "fastcurv/_engine/core.pyx"  # which includes the files beside it
C_SOURCES = [f"src/{name}.c" for name in ("team", "watch", "block", "arch", "tridiagonal")]
C_SOURCES += [f"src/kernels/{name}.c" for name in ISAS]
HEADERS = [
    path.as_posix() for path in sorted(Path("src").rglob("*")) if path.suffix in (".h", ".inc")
]

# GCC's -O3 is worth 2% where products are made (FC_HOT, in kernels.inc), and 40 kB everywhere.
# Functions aligned to cache lines are worth 1 to 3% of the products of the smallest networks,
# which otherwise change by as much from one edit to the next.
GNU_KERNELS = dict.fromkeys(("avx2", "avx512"), ["-fno-gcse", "-falign-functions=64", "-DFC_HOT"])
# The kernels are written in vectors: what compilers add by themselves are copies of loops, for
# cases that no product has. (Batch normalisation asks for it, in its file.)
GNU = ("tree-vectorize", "unswitch-loops", "split-loops", "ipa-cp-clone", "peel-loops")
GNU += ("predictive-commoning", "version-loops-for-strides")
CLANG = ("vectorize", "slp-vectorize", "unroll-loops")

macros = (
    [("FC_NO_VECTORS", "1")] if os.environ.get("FASTCURV_NO_VECTORS") else []
)  # as if the compiler had no vectors
sanitize = os.environ.get("FASTCURV_SANITIZE")
# Optimisation of instrumented builds. GCC contracts a * b + c only with -fexpensive-optimizations,
# which -O1 leaves out and FC_HOT turns on; otherwise kernels differ in the last bit.
INSTRUMENTED_FLAGS = ["-O1", "-fexpensive-optimizations"]
if sys.platform == "win32":
    compile_args, link_args, counters = ["/O2", "/std:c11"], [], []
else:
    # No -ffast-math and no -march: instruction sets are chosen by target regions in the sources, at
    # import time.
    compile_args = [
        "-std=gnu11",
        "-O2",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffp-contract=fast",
        "-pthread",
    ]
    link_args = ["-pthread"]
    if sanitize:
        flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]
        compile_args += [*flags, *INSTRUMENTED_FLAGS]  # -O2 takes longer to build and finds less
        link_args += flags
    else:  # what writes past its end, or over the table of functions, ends the process
        compile_args += ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
        link_args += ["-Wl,-z,relro,-z,now"] * (sys.platform == "linux")
    # counters in the C, not in what Cython makes
    counters = ["--coverage", *INSTRUMENTED_FLAGS] if os.environ.get("FASTCURV_COVERAGE") else []


class Build(build_ext):
    """Sources are compiled side by side; what goes into a wheel names no folder and no symbol that
    nobody asks for, so that two builds of one commit are the same bytes.
    """

    def build_extensions(self):
        (extension,) = self.extensions
        if self.compiler.compiler_type == "unix":
            one_by_one = self.compiler.compile
            version = subprocess.run(
                [self.compiler.compiler_so[0], "--version"], capture_output=True, text=True
            )
            gnu = "Free Software Foundation" in version.stdout
            flags = GNU_KERNELS if gnu else {}
            plain = [f"-fno-{name}" for name in (GNU if gnu else CLANG)]

            def compile(sources, **options):
                def one(source):
                    more = list(options.get("extra_postargs") or [])
                    more += [] if sanitize else [*flags.get(Path(source).stem, []), *plain]
                    more += counters * (source in C_SOURCES)
                    return one_by_one([source], **{**options, "extra_postargs": more})

                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    return [name for part in pool.map(one, sources) for name in part]

            self.compiler.compile = compile
        elif shutil.which("clang-cl"):  # cl itself knows no vector extensions
            self.compiler.initialize()
            self.compiler.cc = shutil.which("clang-cl")
        for_wheel = "bdist_wheel" in self.distribution.command_obj
        if for_wheel and sys.platform != "win32" and not sanitize:
            extension.extra_compile_args += ["-g0", f"-ffile-prefix-map={Path.cwd()}=."]
            extension.extra_link_args.append(
                "-Wl,-x" if sys.platform == "darwin" else "-Wl,--strip-all"
            )
        if for_wheel and sys.platform == "linux":
            extension.define_macros.append(("FC_OLD_GLIBC", "1"))
            # where the names of threads are before glibc 2.34
            extension.extra_link_args += ["-Wl,--no-as-needed", "-l:libpthread.so.0"]
        super().build_extensions()

    def build_extension(self, extension):
        """Compile, but for an editable install where the engine is in place, of the same texts and
        made in the same way: the way is noted in the folder of builds.
        """
        made = Path(CORE).with_name(Path(self.get_ext_filename(extension.name)).name)
        texts = [*extension.sources, *extension.depends, "setup.py", "pyproject.toml"]
        flags = [
            os.environ.get(name)
            for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "FASTCURV_SANITIZE")
        ]
        way = repr([sys.version, cython_version, macros, compile_args, link_args, counters, flags])
        note = Path("build/cython") / (made.name + ".way")
        known = made.exists() and note.exists() and note.read_text() == way
        if (
            self.editable_mode
            and known
            and all(Path(text).stat().st_mtime <= made.stat().st_mtime for text in texts)
        ):
            place = Path(self.get_ext_fullpath(extension.name))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(made, place)
            return
        note.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        super().build_extension(extension)
        if self.editable_mode or "--inplace" in sys.argv:
            note.write_text(way)


core = Extension(
    "fastcurv._engine.core",
    sources=[CORE, *C_SOURCES],
    depends=HEADERS,
    include_dirs=["src"],
    define_macros=macros,
    extra_compile_args=compile_args,
    extra_link_args=link_args + counters,
)

# The archive of sources and the metadata need no C from Cython, which takes most of a minute.
described = {"sdist", "egg_info", "dist_info"} & set(sys.argv)
built = [word for word in sys.argv[1:] if word.startswith(("build", "bdist", "install"))]
extensions = [core]
if built or not described:
    extensions = cythonize(extensions, language_level=3, build_dir="build/cython")

# An index of packages shows the README without the folder that its links and pictures lie in: there
# they are words that say where.
IN_FOLDER = r"\((?!https?:)([^)]+)\)"
readme = re.sub(rf"!\[[^\]]*\]{IN_FOLDER}\n+", "", Path("README.md").read_text("utf-8"))
readme = re.sub(rf"\[([^\]]+)\]{IN_FOLDER}", r"\1 (`\2`)", readme)

setup(
    long_description=readme,
    long_description_content_type="text/markdown",
    ext_modules=extensions,
    cmdclass={"build_ext": Build},
)
