"""Strimzi's own model knows every property of its resources: its definitions are in no package."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import OVERLAYS

MODEL = Path(__file__).parent / "strimzi"
FILES = [OVERLAYS / "strimzi" / f"{name}.yaml" for name in ("kafka", "topics", "users")]
SECONDS = 240
CLASSPATH = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fetch the model by Maven; return where its classes are."""
    if shutil.which("mvn") is None or shutil.which("java") is None:
        pytest.skip("needs Maven and Java 17 or newer")
    told = tmp_path_factory.mktemp("strimzi") / "classpath"
    maven = ["mvn", "--quiet", "--batch-mode", "--file", MODEL, CLASSPATH]
    done = subprocess.run(  # noqa: S603
        [*maven, f"-Dmdep.outputFile={told}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return told.read_text(encoding="utf-8")


def judge(classpath: str, *files: Path) -> tuple[int, str]:
    """Return what the model's reader ends with, and says."""
    done = subprocess.run(  # noqa: S603
        ["java", "--class-path", classpath, MODEL / "Model.java", *files],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout


def test_every_property_is_known(classpath):
    """Of the brokers, the topics and the users."""
    assert judge(classpath, *FILES) == (0, "7 read\n")


def test_one_that_is_not_known_is_found(classpath, tmp_path):
    """So that the test above says something."""
    faulty = tmp_path / "kafka.yaml"
    faulty.write_text(FILES[0].read_text().replace("deleteClaim", "deleteclaim"))
    expected = "KafkaNodePool brokers.spec.storage: deleteclaim is not known\n2 read\n"
    assert judge(classpath, faulty) == (1, expected)
