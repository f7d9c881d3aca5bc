"""What deploy/Dockerfile takes from the repository is there; the image itself is not built here."""

from __future__ import annotations

import json
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def read_instructions() -> list[tuple[str, str]]:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line and not line.startswith("#")]


def copied_from_the_repository() -> list[str]:
    copies = [shlex.split(rest) for name, rest in read_instructions() if name == "COPY"]
    return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]


def test_everything_that_the_image_copies_exists() -> None:
    sources = copied_from_the_repository()
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_everything_that_the_image_copies_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert [
        source for source in copied_from_the_repository() if not any(fnmatch(source, each) for each in let_in)
    ] == []


def test_the_package_builds_from_what_the_image_copies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert needed <= set(copied_from_the_repository())


def test_the_image_runs_as_a_numeric_user_that_the_pods_name_too() -> None:
    users = [rest for name, rest in read_instructions() if name == "USER"]
    assert users == ["65532:65532"]
    for deployment in read_deployments():
        context = deployment["spec"]["template"]["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (65532, 65532)


def test_no_shell_stands_between_the_cluster_and_the_program() -> None:
    (entrypoint,) = [rest for name, rest in read_instructions() if name == "ENTRYPOINT"]
    assert json.loads(entrypoint) == ["usersync"]


def test_the_pods_start_a_command_that_the_package_installs() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    containers = [deployment["spec"]["template"]["spec"]["containers"][0] for deployment in read_deployments()]
    assert [container["command"] for container in containers] == [["usersync"], ["usersync"]]
    assert "usersync" in scripts


def test_third_party_code_in_the_image_is_pinned_by_hash() -> None:
    installs = [json.loads(rest) for name, rest in read_instructions() if name == "RUN" and '"install"' in rest]
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-deps" in command


def read_deployments() -> list[dict[str, Any]]:
    base = ROOT / "deploy" / "kustomize" / "base"
    documents = [document for path in base.glob("*.yaml") for document in yaml.safe_load_all(path.read_text())]
    return [document for document in documents if document["kind"] == "Deployment"]
