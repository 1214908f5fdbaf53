"""pyproject.toml's ranges, the lock, environment.yml, the Makefile and the system check speak of one environment."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
PYTHONS = ("3.11", "3.12")
MACHINES = [
    {"sys_platform": platform, "os_name": "posix", "platform_machine": machine, "python_version": python}
    | {"python_full_version": f"{python}.9", "implementation_name": "cpython", "platform_system": system}
    for python in PYTHONS
    for platform, system, machine in (
        ("linux", "Linux", "x86_64"),
        ("linux", "Linux", "aarch64"),
        ("darwin", "Darwin", "arm64"),
    )
]


def load_check():
    spec = importlib.util.spec_from_file_location("check_system", ROOT / ".ci" / "check_system.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(machine):
    """{package: exact version} that the lock installs on a machine; complains about a package given twice."""
    found = {}
    for requirement in map(Requirement, LINES):
        if requirement.marker is None or requirement.marker.evaluate(machine):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is locked twice for {machine}"
            found[name] = re.fullmatch(r"==([^*,]+)", str(requirement.specifier)).group(1)
    return found


@pytest.mark.parametrize(
    "machine",
    MACHINES,
    ids=lambda m: "-".join((m["sys_platform"], m["platform_machine"], m["python_version"])),
)
def test_the_lock_lies_within_the_declared_ranges(machine):
    locked = pins(machine)
    for requirement in DECLARED:
        version = locked.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), (
            f"{requirement}: the lock has {version}; run make lock"
        )
    assert (locked["torch"], locked["torchvision"]) == ("2.14.1", "0.29.1")
    assert any(name.startswith("nvidia-") for name in locked) == (machine["sys_platform"] == "linux")


def test_the_oldest_supported_torch_is_admitted():
    ranges = {requirement.name: requirement.specifier for requirement in DECLARED}
    assert ranges["torch"].contains("2.11.0") and ranges["torchvision"].contains("0.26.0")


def test_the_supported_pythons_are_the_same_everywhere():
    check = load_check()
    span = [f"{check.OLDEST[0]}.{minor}" for minor in range(check.OLDEST[1], check.NEWEST[1] + 1)]
    admitted = SpecifierSet(PROJECT["requires-python"])
    assert tuple(span) == PYTHONS
    assert [f"3.{minor}" for minor in range(6, 20) if admitted.contains(f"3.{minor}.9")] == span


def test_conda_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert environment["name"] == PROJECT["name"]
    assert {"pip", "cxx-compiler", "make"} <= set(conda)
    (python,) = (item.removeprefix("python=") for item in conda if item.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.9") and python == PYTHONS[0]
    assert pip == ["-r requirements.txt", "-e ."]


def test_make_installs_the_lock():
    makefile = (ROOT / "Makefile").read_text()
    assert ".venv/installed: requirements.txt" in makefile
    assert "check_system.py requirements.txt .venv/requirements.txt" in makefile
    assert "pip install --disable-pip-version-check -r .venv/requirements.txt" in makefile


def test_every_import_is_declared():
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED}
    homes = packages_distributions()
    files = [*(ROOT / "wsfcn_lib").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]
    files += [
        path
        for home in ("tests", "tests/browser", "tests/benchmarks", ".ci")
        for path in (ROOT / home).glob("*.py")
    ]
    own = {"wsfcn_lib", *(path.stem for path in files)}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                found = {canonicalize_name(home) for home in homes.get(top, [])}
                assert found & declared, f"{path.name} imports {top}, which pyproject.toml does not declare"


def text_files():
    """Tracked files, and new ones that git would not ignore."""
    done = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("not a git checkout, so nothing says which files belong to the project")
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, content.decode()


def test_no_file_names_a_machine_or_a_package_host():
    host = "index-ur[l]|find-link[s]|pythonhoste[d]"  # the brackets keep this line from finding itself
    places = re.compile(rf"(?<![\w.:/-])/(?:home|root|Users|work|workspace)/[\w.-]+|{host}")
    found = [f"{name}: {hit.group()}" for name, text in text_files() for hit in places.finditer(text)]
    found += [f"{name}: {ROOT}" for name, text in text_files() if f"{ROOT}/" in text]
    assert not found


def test_the_lock_names_only_packages():
    assert not re.search(r"://|@ |--|\\", "\n".join(LINES))
    assert LINES == sorted(LINES, key=lambda line: line.split("==")[0])


@pytest.mark.parametrize(
    "version, words",
    [
        ((2, 7), "2.7 .* is too old"),
        ((3, 10, 4), "3.10 .* is too old"),
        ((3, 13, 0), "3.13 .* is newer than any"),
    ],
)
def test_an_unfit_python_is_named(version, words):
    sentence, packages = load_check().python_problem(version)
    assert re.search(words, sentence) and "needed is 3.11 to 3.12" in sentence and "PYTHON=" in sentence
    assert packages == []


def test_a_fit_python_passes():
    check = load_check()
    assert check.python_problem((3, 11, 0)) is None and check.python_problem((3, 12, 5)) is None


def test_missing_tools_are_named_with_their_packages(monkeypatch, tmp_path):
    check = load_check()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(check.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(check.sys, "executable", os.path.realpath("/usr/bin/python3"))
    assert "package make" in check.make_problem()[0] and check.make_problem()[1] == ["make"]
    sentence, packages = check.crf_problem()
    assert (
        packages == ["g++", "python3-dev"]
        and "(package g++)" in sentence
        and "(package python3-dev)" in sentence
    )
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    sentence, packages = check.venv_problem()
    assert packages == ["python3-venv"] and "install the package python3-venv" in sentence


def test_only_the_browser_test_asks_for_a_browser(monkeypatch, capsys):
    check = load_check()
    monkeypatch.setattr(shutil, "which", lambda name: "here" if name not in check.BROWSERS else None)
    monkeypatch.setattr(check, "free_gb", lambda folder: 1000)
    check.main(["--packages"])
    assert "chromium" not in capsys.readouterr().out.split()
    assert check.main(["--packages", "--browser"]) == 1 and "chromium" in capsys.readouterr().out.split()
    makefile, steps = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "check_system.py --browser\n" in makefile and "check_system.py --packages --browser " in steps


def test_a_full_disk_is_named():
    check = load_check()
    sentence, _ = check.space_problem("/somewhere", 8, 1.25)
    assert "/somewhere has 1.2 GB free, installing takes 8 GB there" in sentence and "TMPDIR" in sentence
    assert check.space_problem("/somewhere", 8, 9) is None


@pytest.mark.parametrize("compiler", [True, False])
def test_without_a_compiler_only_the_crf_is_left_out(compiler, monkeypatch, tmp_path, capsys):
    check = load_check()
    monkeypatch.setattr(
        check, "crf_problem", lambda: None if compiler else ("without g++ the dense CRF is left out", ["g++"])
    )
    monkeypatch.setattr(check, "free_gb", lambda folder: 1000)
    copy = tmp_path / "new" / "requirements.txt"
    assert check.main([str(ROOT / "requirements.txt"), str(copy)]) == 0
    missing = set((ROOT / "requirements.txt").read_text().splitlines()) - set(copy.read_text().splitlines())
    assert {line.split("==")[0] for line in missing} == (set() if compiler else {"pydensecrf2"})
    assert ("WARNING  without g++" in capsys.readouterr().err) == (not compiler)


def test_something_indispensable_stops_the_installation(monkeypatch, tmp_path, capsys):
    check = load_check()
    monkeypatch.setattr(
        check, "make_problem", lambda: ("make is not installed: install the package make", ["make"])
    )
    copy = tmp_path / "requirements.txt"
    assert check.main([str(ROOT / "requirements.txt"), str(copy)]) == 1
    assert "MISSING  make is not installed" in capsys.readouterr().err and not copy.exists()
    assert check.main(["--packages"]) == 1
    assert "make" in capsys.readouterr().out.split()


def test_the_check_is_written_for_old_pythons():
    tree = ast.parse((ROOT / ".ci" / "check_system.py").read_text(), feature_version=(3, 6))
    modern = (
        ast.JoinedStr,
        ast.NamedExpr,
        ast.AnnAssign,
        ast.Match,
    )  # so that Python 2 too can say that it is too old
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, modern)]
