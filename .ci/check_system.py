"""Check that this machine can install the kit, before anything is installed; runs on any Python, imports no package.

    python3 .ci/check_system.py [--browser] [--quiet | --packages] [requirements.txt copy.txt]

Prints what is missing and the Debian package that has it (--packages: only the packages); the exit code is 1 when
something indispensable is. --browser: so is the browser that `make test-browser` drives. With two files, the first is
copied to the second, without the CRF package where this machine cannot compile it.
"""

from __future__ import print_function

import io
import os
import shutil
import sys
import sysconfig
import tempfile

OLDEST, NEWEST = (3, 11), (3, 12)  # the lock's and pyproject's; tests/test_environment.py compares them
ROOM = {
    "linux": (8, 3)
}  # GB for the environment (6.4 measured) and for the wheels while they unpack (2.9), CUDA included
ROOM_ELSEWHERE = (3, 1)
CRF = "pydensecrf2"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # any of these is one


def package(name):
    """The Debian package of this Python: python3-dev for the system's own, python3.12-dev for another one's."""
    system = os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable)
    return ("python3-%s" if system else "python%d.%d-%%s" % sys.version_info[:2]) % name


def python_problem(version=sys.version_info):
    """The interpreter's version. Each check returns None or (sentence, packages to install)."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    kind = "too old" if tuple(version[:2]) < OLDEST else "newer than any this kit was tried with"
    text = "Python %d.%d (%s) is %s; needed is %d.%d to %d.%d: install one and name it, as in make demo PYTHON=python3.11"
    return text % (tuple(version[:2]) + (sys.executable, kind) + OLDEST + NEWEST), []


def venv_problem():
    """The modules that make a virtual environment, which Debian packs separately."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        text = "%s cannot make environments (%s): install the package %s"
        return text % (sys.executable, error, package("venv")), [package("venv")]
    return None


def make_problem():
    """GNU make."""
    return None if shutil.which("make") else ("make is not installed: install the package make", ["make"])


def space_problem(folder, need, free):
    """Room on a disk, in GB."""
    if free >= need:
        return None
    text = "%s has %.1f GB free, installing takes %d GB there: free some, move the clone, or set TMPDIR to a larger disk"
    return text % (folder, free, need), []


def crf_problem():
    """What compiling the CRF needs: a C++ compiler and Python's headers."""
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    sentences, packages = [], []
    if not any(shutil.which(name) for name in (compiler.split()[0], "c++", "g++")):
        sentences.append("a C++ compiler (package g++)")
        packages.append("g++")
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        sentences.append("Python's headers (package %s)" % package("dev"))
        packages.append(package("dev"))
    if not packages:
        return None
    text = "without %s the dense CRF is left out; all else works. To have it: install that, rm .venv/installed, make again"
    return text % " and ".join(sentences), packages


def browser_problem():
    """The browser that `make test-browser` drives."""
    if any(shutil.which(name) for name in BROWSERS):
        return None
    return "chromium, the browser of make test-browser, is not installed: install the package chromium", [
        "chromium"
    ]


def free_gb(folder):
    """Free space of the disk below a folder, in GB."""
    return shutil.disk_usage(folder).free / 1e9


def problems():
    """(indispensable, dispensable) things that are missing."""
    old = python_problem()
    if old:
        return [old], []  # the other checks may not even run on such a Python
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    rooms = ROOM.get(sys.platform, ROOM_ELSEWHERE)
    found = [venv_problem(), make_problem()]
    if not os.path.exists(os.path.join(here, ".venv", "installed")):
        scratch = tempfile.gettempdir()
        if os.stat(here).st_dev == os.stat(scratch).st_dev:
            found.append(space_problem(here, sum(rooms), free_gb(here)))
        else:
            found += [
                space_problem(here, rooms[0], free_gb(here)),
                space_problem(scratch, rooms[1], free_gb(scratch)),
            ]
    return [item for item in found if item], [item for item in [crf_problem()] if item]


def copy_lock(source, target, with_crf):
    """Copy requirements, leaving out what cannot be compiled."""
    with io.open(source, encoding="utf-8") as file:
        lines = [line for line in file if with_crf or not line.startswith(CRF)]
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    with io.open(target, "w", encoding="utf-8") as file:
        file.writelines(lines)


def main(arguments):
    """Report; returns the exit code."""
    errors, warnings = problems()
    errors += [item for item in [browser_problem()] if item and "--browser" in arguments]
    if "--packages" in arguments:
        print(" ".join(name for _, packages in errors + warnings for name in packages))
    elif "--quiet" not in arguments:
        for kind, found in (("MISSING", errors), ("WARNING", warnings)):
            for sentence, _ in found:
                sys.stderr.write("%s  %s\n" % (kind, sentence))
    files = [item for item in arguments if not item.startswith("-")]
    if files and not errors:
        copy_lock(files[0], files[1], not warnings)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
