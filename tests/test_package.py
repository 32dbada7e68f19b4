"""The wheel: what is in it, and that it stands in an empty environment."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

SOURCES = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = (".*", "*.egg-info", "build", "dist", "demo-output", "__pycache__")
    copytree(SOURCES, folder / "sources", ignore=ignore_patterns(*skipped))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "-w", str(folder), str(folder / "sources")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("birdinv-*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"birdinv", "birdinv_cli", "birdinv_manifests"}
    assert "birdinv/py.typed" in names
    for package, folder in (
        ("birdinv", "birdinv"),
        ("birdinv_cli", "cli"),
        ("birdinv_manifests", "data_manifests"),
    ):
        modules = (path.relative_to(SOURCES / folder) for path in (SOURCES / folder).rglob("*.py"))
        assert {f"{package}/{path.as_posix()}" for path in modules} <= set(names)
        tables = (SOURCES / folder).rglob("*.toml")
        assert {f"{package}/{path.relative_to(SOURCES / folder)}" for path in tables} <= set(names)


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (info,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    lines = archive.read(info).decode().splitlines()
    needs = {line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line}
    assert "torch>=2.9" in needs and "Requires-Python: >=3.11" in lines
    assert not any(need.startswith("torchaudio") and "extra" not in need for need in needs)


def test_it_installs_and_answers_in_an_environment_without_the_rest(
    wheel: Path, tmp_path: Path
) -> None:
    """Only click is lent to it: `--help` needs no torch, no NumPy, no libsndfile."""
    import click

    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, text=True)

    def said(*line: str) -> str:
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    script = (
        "import birdinv, birdinv_manifests, importlib.resources, importlib.util\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "print(birdinv.__version__, birdinv.BirdinvError.__name__)"
    )
    version, error = said(str(python), "-c", script).split()
    assert version in wheel.name and error == "BirdinvError"
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    copytree(Path(click.__file__).parent, site / "click")
    birdinv = str(tmp_path / "venv/bin/birdinv")
    assert said(birdinv, "--version").endswith(version)
    assert "segment" in said(birdinv, "--help")
    assert "--min-conf" in said(birdinv, "predict", "--help")
