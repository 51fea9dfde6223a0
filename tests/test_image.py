"""The image, as far as it goes without an engine: its build steps are carried out, and what they leave is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from loudly import skip_loudly

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PREFIX = "/opt/metafield-sync"
INSTALL_TIMEOUT_S = 300
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30


@dataclass
class Stage:
    """One stage of the Dockerfile: its instructions in order."""

    steps: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def last(self, instruction: str) -> str:
        """What was said last, which is what counts."""
        return [rest for name, rest in self.steps if name == instruction][-1]

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        found = [pair.partition("=") for name, rest in self.steps if name == "ENV" for pair in shlex.split(rest)]
        return {name: value for name, _, value in found}


def stages() -> list[Stage]:
    """The Dockerfile's stages. Comments and continued lines as Docker reads them; nothing fancier is used there."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append(Stage())
        elif name:
            found[-1].steps.append((name, rest.strip()))
    return found


def sent_to_the_builder(source: str) -> bool:
    """Whether .dockerignore lets a file or folder through: it leaves out all but what it names with a `!`."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    return f"!{source}" in rules


@dataclass(frozen=True)
class Image:
    """What the build leaves, at another place than in the image."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """The entry point with these arguments."""
        return [*json.loads(stages()[-1].last("ENTRYPOINT")), *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """The image's environment, nothing of ours."""
        here = stages()[-1].environment() | more
        programs = here.pop("PATH").replace(PREFIX, str(self.folder)).replace("$PATH", os.defpath)
        return here | {"PATH": programs, "LANG": "C.UTF-8"}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        env = self.environment(**environment)
        program = shutil.which(self.command()[0], path=env["PATH"])
        assert program is not None
        return subprocess.run(
            [program, *arguments], env=env, check=False, capture_output=True, text=True, timeout=START_TIMEOUT_S
        )


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The build stage, carried out in a folder, with this machine's pip cache."""
    folder = tmp_path_factory.mktemp("image")
    at, prefix = folder / "build", folder / "opt"
    at.mkdir()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name, rest in stages()[0].steps:
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                assert sent_to_the_builder(source), f".dockerignore keeps {source} from the builder"
                whole = (ROOT / source).is_dir()
                into = at / target if whole else at / target / Path(source).name
                into.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if whole else shutil.copy)(ROOT / source, into)
        elif name == "RUN":
            command = rest.replace(PREFIX, str(prefix)).replace("--no-cache-dir ", "")
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=at,
                env=os.environ | {"PATH": programs},
                check=False,
                capture_output=True,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
            )
            if re.search("No matching distribution|Could not fetch|connection", done.stderr) and done.returncode != 0:
                skip_loudly(request.config, f"the image's build steps: pip reaches no index: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
    return Image(prefix)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def serving(image: Image, database_url: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The image's default command at work, and its environment."""
    env = image.environment(
        DATABASE_URL=database_url, ENCRYPTION_KEYS=Fernet.generate_key().decode(), PORT=str(free_port())
    )
    command = image.command(*json.loads(stages()[-1].last("CMD")))
    program = shutil.which(command[0], path=env["PATH"])
    assert program is not None
    with subprocess.Popen(
        [program, *command[1:]], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield process, env
        process.kill()


def health(env: dict[str, str]) -> int:
    """The exit status of HEALTHCHECK's command."""
    command: list[str] = json.loads(stages()[-1].last("HEALTHCHECK").partition("CMD ")[2])
    program = shutil.which(command[0], path=env["PATH"])
    assert program is not None
    return subprocess.run([program, *command[1:]], env=env, check=False, capture_output=True, timeout=10).returncode


@pytest.mark.timeout(INSTALL_TIMEOUT_S + 60)
def test_what_the_image_starts_becomes_healthy_and_ends_in_order_on_sigterm(
    serving: tuple[subprocess.Popen[str], dict[str, str]],
) -> None:
    process, env = serving
    assert health(env) != 0, "healthy before it can be"
    deadline = time.monotonic() + START_TIMEOUT_S
    while health(env) != 0:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0


@pytest.mark.timeout(INSTALL_TIMEOUT_S + 60)
def test_the_image_migrates(image: Image, empty_database_url: str) -> None:
    done = image.run("migrate", DATABASE_URL=empty_database_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Applied: ")


@pytest.mark.timeout(INSTALL_TIMEOUT_S + 60)
def test_without_a_database_the_image_says_what_is_missing(image: Image, tmp_path: Path) -> None:
    done = image.run("serve", DATA_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(INSTALL_TIMEOUT_S + 60)
def test_the_image_holds_nothing_that_only_the_demo_and_the_build_need(image: Image) -> None:
    installed, needed = (
        set(
            subprocess.run(
                [image.folder / "bin/python", "-c", program],
                check=True,
                capture_output=True,
                text=True,
                timeout=START_TIMEOUT_S,
            ).stdout.split()
        )
        for program in (INSTALLED, NEEDED)
    )
    assert installed - needed == set()
    assert needed - installed == set()


INSTALLED = """
from importlib.metadata import distributions
print(*{found.name.lower().replace("_", "-") for found in distributions()})
"""


# What metafield-sync needs, without extras, and what that needs in turn, with the extras it asks for.
NEEDED = """
from importlib.metadata import distribution
from packaging.requirements import Requirement
todo, seen = [("metafield-sync", "")], set()
while todo:
    name, extra = todo.pop()
    one = name.lower().replace("_", "-"), extra
    if one in seen:
        continue
    seen.add(one)
    for text in distribution(name).requires or []:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            todo += [(wanted.name, its) for its in ["", *wanted.extras]]
print(*{name for name, _ in seen})
"""


def test_the_image_runs_as_nobody_in_particular_and_carries_no_secret() -> None:
    final = stages()[-1]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", final.last("USER"))
    names = {name for stage in stages() for name in stage.environment()}
    assert not {name for name in names if re.search("KEY|SECRET|TOKEN|PASSWORD|DATABASE", name)}
    assert not [rest for stage in stages() for name, rest in stage.steps if name == "ARG"]
