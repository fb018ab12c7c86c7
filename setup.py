"""The one extension module of the compiled side, and its flags. Everything else is in
pyproject.toml.
"""

import gc
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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

# Optimisation of kernels for CPUs that lack AVX2. GCC contracts a * b + c only with
# -fexpensive-optimizations, which -O1 leaves out and FC_HOT turns on; otherwise kernels differ in
# the last bit. For the C of Cython, -O1 would save 9 of 90 CPU seconds of the build, and cost 5 to
# 9% of the products of the smallest networks.
LESS = ["-O1", "-fexpensive-optimizations"]
# -Wmisleading-indentation takes a third of the compilation of a file of 200 000 lines.
FLAGS_OF = {"core": ["-Wno-misleading-indentation"], "baseline": LESS}
# GCC's -O3 is worth 2% where products are made (FC_HOT, in kernels.inc), and 40 kB everywhere.
# Functions aligned to cache lines are worth 1 to 3% of the products of the smallest networks,
# which otherwise change by as much from one edit to the next.
GNU_FLAGS_OF = dict.fromkeys(("avx2", "avx512"), ["-fno-gcse", "-falign-functions=64", "-DFC_HOT"])
# The kernels are written in vectors: what compilers add by themselves are copies of loops, for
# cases that no product has. (Batch normalisation asks for it, in its file.)
GNU = ("tree-vectorize", "unswitch-loops", "split-loops", "ipa-cp-clone", "peel-loops")
GNU += ("predictive-commoning", "version-loops-for-strides")
CLANG = ("vectorize", "slp-vectorize", "unroll-loops")


def compile_seconds(source):
    """Return the estimated processor time of one source, in seconds."""
    return {"core": 25, "avx512": 35, "avx2": 18, "baseline": 12}.get(Path(source).stem, 1)


macros = (
    [("FC_NO_VECTORS", "1")] if os.environ.get("FASTCURV_NO_VECTORS") else []
)  # as if the compiler had no vectors
sanitize = os.environ.get("FASTCURV_SANITIZE")
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
    # Python's own flags ask for symbols, which take a third of the compilation.
    compile_args += [] if "-g" in os.environ.get("CFLAGS", "").split() else ["-g0"]
    link_args = ["-pthread"]
    if sanitize:
        flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]
        compile_args += [*flags, *LESS]  # -O2 takes longer to build and finds less
        link_args += flags
    else:  # what writes past its end, or over the table of functions, ends the process
        compile_args += ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
        link_args += ["-Wl,-z,relro,-z,now"] * (sys.platform == "linux")
    # counters in the C, not in what Cython makes
    counters = ["--coverage", *LESS] if os.environ.get("FASTCURV_COVERAGE") else []


class Build(build_ext):
    """Sources are compiled side by side, each to an object in a folder that is named by a hash of
    what determines it, so that every installation in this checkout uses the same objects. What goes
    into a wheel names no folder and no symbol that nobody asks for, so that two builds of one
    commit are the same bytes.
    """

    def build_extensions(self):
        (extension,) = self.extensions
        self.side_by_side = self.compiler.compiler_type == "unix"
        if self.side_by_side:
            command = self.compiler.compiler_so
            version = subprocess.run([command[0], "--version"], capture_output=True, text=True)
            self.compiler_text = repr([command, version.stdout])
            gnu = "Free Software Foundation" in version.stdout
            self.flags = [f"-fno-{name}" for name in (GNU if gnu else CLANG)]
            # clang warns of the second flag of LESS, which it does not need.
            self.flags += [] if gnu else ["-Wno-ignored-optimization-argument"]
            self.flags_of = FLAGS_OF | (GNU_FLAGS_OF if gnu else {})
        else:
            self.compiler.initialize()
            self.compiler_text = sys.version
            self.flags, self.flags_of = [], {}
            if shutil.which("clang-cl"):  # cl itself knows no vector extensions
                self.compiler.cc = shutil.which("clang-cl")
        for_wheel = "bdist_wheel" in self.distribution.command_obj and not self.editable_mode
        if for_wheel and sys.platform != "win32" and not sanitize:
            extension.extra_compile_args.append(f"-ffile-prefix-map={Path.cwd()}=.")
            extension.extra_link_args.append(
                "-Wl,-x" if sys.platform == "darwin" else "-Wl,--strip-all"
            )
        if for_wheel and sys.platform == "linux":
            extension.define_macros.append(("FC_OLD_GLIBC", "1"))
            # where the names of threads are before glibc 2.34
            extension.extra_link_args += ["-Wl,--no-as-needed", "-l:libpthread.so.0"]
        super().build_extensions()

    def build_extension(self, extension):
        """Compile the sources, and link their objects."""
        texts = b"".join(Path(header).read_bytes() for header in HEADERS)
        commands = [self.object_command(extension, source, texts) for source in extension.sources]
        missing = [command for command in commands if not Path(command[2], "complete").exists()]
        if missing:
            missing.sort(key=lambda command: -compile_seconds(command[0]))
            seconds = [compile_seconds(source) for source, *_ in missing]
            n_processors = (os.cpu_count() or 1) if self.side_by_side else 1
            estimate = max(seconds[0], sum(seconds) / n_processors)
            print(
                f"fastcurv: compiling {len(missing)} of {len(commands)} C files on {n_processors} "
                f"processors, about {estimate:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            with ThreadPoolExecutor(n_processors) as pool:
                list(pool.map(lambda command: self.compile_object(extension, *command), missing))
        extension.sources, extension.extra_objects = [], [name for _, name, *_ in commands]
        # Link always, in less than a second: the objects of an earlier version are older than the
        # last link.
        self.force = self.compiler.force = True
        super().build_extension(extension)

    def object_command(self, extension, source, texts):
        """Return (source, object, folder, flags)."""
        stem = Path(source).stem
        flags = [*extension.extra_compile_args]
        if not sanitize:
            flags += [*self.flags, *self.flags_of.get(stem, [])]
        flags += counters * (source in C_SOURCES)
        key = [self.compiler_text, extension.define_macros, flags]
        key += [] if source in C_SOURCES else [sys.version]  # whose headers Cython's C includes
        digest = hashlib.sha256(repr(key).encode() + texts + Path(source).read_bytes()).hexdigest()
        folder = f"build/objects/{stem}-{digest[:16]}"
        (name,) = self.compiler.object_filenames([source], output_dir=folder)
        return source, name, folder, flags

    def compile_object(self, extension, source, _, folder, flags):
        self.compiler.compile(
            [source],
            output_dir=folder,
            macros=extension.define_macros,
            include_dirs=[*self.include_dirs, *extension.include_dirs],
            extra_postargs=flags,
        )
        Path(folder, "complete").touch()


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
    gc.disable()  # objects live until the end: collections take a quarter of Cython's time
    extensions = cythonize(extensions, language_level=3, build_dir="build/cython")
    gc.enable()

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
