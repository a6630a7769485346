"""What is printed for a scheduler: valid there, and every value arrives as it was given, whatever characters it has."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from command import Cli, assert_refused
from folders import needs_posix
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import ROOT, lines
from schedulers import PROGRAMS, container_of, documents, run, run_container
from typer.main import get_command

from alserve.cli import segment
from alserve.clusters.job import Job, read_job
from alserve.clusters.render import render, unexpanded, yaml_text

FAKE = """#!/bin/sh
printf '%s\\0' "$@"
"""
"""Stands in for `alserve`: prints the words that it is given."""

NASTY = (
    "$(touch x)",
    "$$",
    "${HOME}",
    "`id`",
    "'\"",
    "\n- --",
    "\r\n",
    "\\",
    "\x85\u2028\ufeff\x7f\x1b",
    "{{ x }}",
    "#!",
    "%",
    " ",
    "-",
    ": ",
    "😀",
    "é",
)
WORDS = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    max_size=5,
).map("".join)
PLACES = WORDS.filter(bool)
ALL = {"gpus": 2, "secret": "s3", "volume": ["data:/data", "other:/other"]}
"""Values of a job that has something of everything."""
KUBERNETES = ("1.29", kubernetes_validate.latest_version())

SEGMENT = get_command(segment.commands).commands["segment"]  # type: ignore[attr-defined]

slow = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def jobs(draw: st.DrawFn, kind: str) -> Job:
    """Jobs whose folders and options have whatever names there can be."""
    scheme = "" if kind == "slurm" else "s3://bucket/"
    return read_job(
        kind=kind,
        input=[scheme + place for place in draw(st.lists(PLACES, min_size=1, max_size=3))],
        out=scheme + draw(PLACES),
        model=draw(st.none() | PLACES.map("/".__add__)),
        options=draw(st.lists(st.sampled_from(["--save", "--tile"]).flatmap(lambda name: WORDS.map(name.__add__)))),
        shards=draw(st.integers(1, 10_000)),
        gpus=draw(st.integers(0, 1)),
        image=None if kind == "slurm" else "tissue:1",
    )


def job(kind: str, **values: Any) -> Job:
    usual = {"input": ["s3://bucket/in"], "out": "s3://bucket/out", "shards": 3, "image": "registry:5000/a/tissue:1"}
    return read_job(kind=kind, **{**usual, **values})


@pytest.fixture
def alserve(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which `alserve` prints what it is given."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "alserve").write_text(FAKE)
    (tmp_path / "bin" / "alserve").chmod(0o755)
    yield {"PATH": f"{tmp_path / 'bin'}:{PROGRAMS['PATH']}"}
    assert {path.name for path in tmp_path.iterdir()} <= {"bin", "FILE"}  # no word was run


def words(printed: bytes) -> list[str]:
    return printed.decode().split("\0")[:-1]


@needs_posix
@slow
@given(job=jobs("k8s"), index=st.integers(0, 9_999))
def test_kubernetes_gives_every_word(job: Job, index: int, tmp_path: Path, alserve: dict[str, str]) -> None:
    shards, merge = documents(render(job))
    done = run_container(container_of(shards), tmp_path, JOB_COMPLETION_INDEX=str(index), **alserve)
    assert words(done.stdout) == ["segment", f"--shard={index + 1}/{job.shards}", *job.arguments], done.stderr
    assert words(run_container(container_of(merge), tmp_path, **alserve).stdout) == ["merge", "--", job.out]


@needs_posix
@slow
@given(job=jobs("slurm"), task=st.integers(1, 10_000))
def test_slurm_gives_every_word(job: Job, task: int, tmp_path: Path, alserve: dict[str, str]) -> None:
    (tmp_path / "FILE").write_text(render(job), newline="")
    environment = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "4", **alserve}
    done = run(["bash", "FILE"], tmp_path, **environment)
    assert words(done.stdout) == ["segment", f"--shard={task}/{job.shards}", "--threads=4", *job.arguments], done.stderr
    assert words(run(["bash", "FILE", "merge"], tmp_path, **alserve).stdout) == ["merge", "--", job.out]


@needs_posix
@slow
@given(job=jobs("ray"))
def test_ray_gives_every_word(job: Job, tmp_path: Path, alserve: dict[str, str]) -> None:
    script, ray = documents(render(job))
    assert ray["spec"]["entrypoint"] == "bash /etc/alserve/segment.sh"
    (tmp_path / "FILE").write_text(script["data"]["segment.sh"], newline="")
    done = run(["bash", "FILE"], tmp_path, **alserve)
    assert words(done.stdout) == ["segment", "--engine=ray", "--address=auto", *job.arguments], done.stderr


@given(job=jobs("slurm"))
def test_segment_reads_the_words_as_they_were_meant(job: Job) -> None:
    plain = job.model_copy(update={"options": ()})
    params = SEGMENT.make_context("segment", list(plain.arguments)).params
    assert list(map(Path, params["inputs"])) == list(map(Path, job.input))
    assert Path(params["out"]) == Path(job.out)


@given(text=WORDS)
def test_a_text_in_yaml_and_in_kubernetes(text: str) -> None:
    assert yaml_text(text).isprintable()
    assert documents(f"[{yaml_text(text)}]") == [[text]]
    assert unexpanded(text).count("$") == 2 * text.count("$")


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("more", [{}, ALL])
def test_kubernetes_accepts_the_jobs(version: str, more: dict[str, Any]) -> None:
    shards, merge = documents(render(job("k8s", **more)))
    for document in (shards, merge):
        kubernetes_validate.validate(document, version, strict=True)
    spec = shards["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert spec["backoffLimitPerIndex"] > 0
    assert spec["maxFailedIndexes"] == 3
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "FailIndex"]
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"] == {
        "containerName": container_of(shards)["name"],
        "operator": "In",
        "values": [1],
    }
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # a podFailurePolicy asks for it
    assert merge["spec"]["suspend"] is True


RAY_FIELDS = {
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "entrypoint",
        "submissionMode",
        "submitterPodTemplate",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "rayClusterSpec",
    },
    "rayClusterSpec": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
"""Names in KubeRay's API reference, ray.io/v1; whole files were checked against its CRDs of 1.5.1, 1.6.1 and 1.7.0."""


@pytest.mark.parametrize("more", [{}, ALL])
def test_kuberay_accepts_the_job(more: dict[str, Any]) -> None:
    script, ray = documents(render(job("ray", **more)))
    kubernetes_validate.validate(script, KUBERNETES[-1], strict=True)
    cluster = ray["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    found = {"RayJob": ray, "spec": ray["spec"], "rayClusterSpec": cluster, "headGroupSpec": head}
    for name, fields in (found | {"workerGroupSpecs": workers}).items():
        assert set(fields) == RAY_FIELDS[name]
    assert (ray["apiVersion"], ray["spec"]["submissionMode"]) == ("ray.io/v1", "K8sJobMode")
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 3
    for start in (head["rayStartParams"], workers["rayStartParams"]):
        assert all(isinstance(value, str) for value in start.values())
    (needed,) = re.findall(r'"ray>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert str(cluster["rayVersion"]) == f"{needed}.0"
    for template in (ray["spec"]["submitterPodTemplate"], head["template"], workers["template"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES[-1], strict=True)
    (mount,) = [
        mount for mount in head["template"]["spec"]["containers"][0]["volumeMounts"] if mount["name"] == "script"
    ]
    assert (mount["mountPath"], list(script["data"])) == ("/etc/alserve", ["segment.sh"])


@pytest.mark.parametrize("kind", ["k8s", "ray"])
def test_pods_may_do_little(kind: str) -> None:
    pods = list(pod_specs(documents(render(job(kind, **ALL)))))
    assert len(pods) == {"k8s": 2, "ray": 3}[kind]
    for pod in pods:
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1034  # by number: the kubelet cannot tell that a name is not root
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["volumeMounts"][0] == {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108  a pod's own
        assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}


def pod_specs(value: object) -> Iterator[dict[str, Any]]:
    """Find the specifications of pods in an object."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for part in value.values():
            yield from pod_specs(part)
    elif isinstance(value, list):
        for part in value:
            yield from pod_specs(part)


@needs_posix
def test_the_script_asks_slurm_for_what_each_shard_needs(tmp_path: Path) -> None:
    text = render(job("slurm", cpus=6, memory="3Gi", gpus=2, image="tissue.sif", name="slides", shards=7))
    asked = {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")}
    assert {"--array=1-7", "--cpus-per-task=6", "--mem=3G", "--gres=gpu:2", "--job-name=slides", "--requeue"} <= asked
    first = next(number for number, line in enumerate(text.splitlines()) if not line.startswith("#"))
    assert text.splitlines()[first:].count("#SBATCH") == 0  # Slurm stops looking at the first command
    (tmp_path / "FILE").write_text(text)
    assert run(["bash", "-n", "FILE"], tmp_path).returncode == 0
    assert "apptainer exec --nv tissue.sif alserve segment" in text
    assert "apptainer exec docker://tissue:1 alserve segment" in render(job("slurm", image="tissue:1"))


PLAIN = ("--input", "s3://bucket/in", "--out", "s3://bucket/out", "--shards", "3", "--image", "tissue:1")


def test_the_command_prints_the_file(cli: Cli) -> None:
    code, text, said = cli("cluster-template", "k8s", *PLAIN, "--save", "mask", "--fill-holes", "--volume", "d:/d")
    assert (code, said) == (0, "")
    options = ("--save", "mask", "--fill-holes")
    assert text == render(job("k8s", image="tissue:1", options=options, volume=["d:/d"]))


@pytest.mark.parametrize("kind", ["k8s", "slurm", "ray"])
def test_the_lines_of_the_page_are_right(cli: Cli, kind: str) -> None:
    (typed,) = [line for line in lines(ROOT / "docs" / "clusters.md", "console") if f"cluster-template {kind}" in line]
    code, text, said = cli(*shlex.split(typed.partition(" > ")[0])[1:])
    assert (code, said) == (0, "")
    assert "pictures" in text
    assert "results" in text


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("k8", *PLAIN), "'k8' is unknown; did you mean k8s? there are k8s, slurm, ray"),
        (("k8s", *PLAIN, "--shards", "0"), "--shards '0': should be greater than or equal to 1"),
        (("k8s", *PLAIN, "--shards", "10001"), "--shards '10001': should be less than or equal to 10000"),
        (("k8s", *PLAIN, "--cpus", "0"), "--cpus '0': should be"),
        (("k8s", *PLAIN, "--gpus", "-1"), "--gpus '-1': should be"),
        (("k8s", *PLAIN, "--memory", "4GB"), "--memory '4GB': give Mi, Gi or Ti, such as 4Gi"),
        (("k8s", *PLAIN, "--memory", "4Gi\n"), r"--memory '4Gi\n': give Mi"),
        (("k8s", *PLAIN, "--name", "Slides"), "--name 'Slides': give at most 40 lower-case letters"),
        (("k8s", *PLAIN, "--name", "a" * 41), "give at most 40"),
        (("k8s", *PLAIN, "--name", "a-"), "give at most 40"),
        (("k8s", *PLAIN, "--name", "a\n#"), r"--name 'a\n#': give at most 40"),
        (("k8s", *PLAIN, "--image", "Tissue"), "--image 'Tissue': give [HOST/]NAME[:TAG]"),
        (("k8s", *PLAIN, "--image", "a b"), "--image 'a b': give"),
        (("k8s", *PLAIN, "--image", "a.sif"), None),
        (("k8s", *PLAIN, "--image", "A.sif"), "--image 'A.sif': give"),
        (("slurm", *PLAIN, "--image", "-A.sif"), "--image '-A.sif': give"),
        (("k8s", *PLAIN, "--secret", "my_secret"), "--secret 'my_secret': is no name of a Secret"),
        (("k8s", *PLAIN, "--volume", "data"), "--volume 'data': give CLAIM:/FOLDER"),
        (("k8s", *PLAIN, "--volume", "data:/tmp"), "--volume 'data:/tmp': give"),
        (("k8s", *PLAIN, "--volume", "data:/a/../b"), "--volume 'data:/a/../b': give"),
        (("k8s", *PLAIN, "--volume", "a:/a", "--volume", "b:/a"), "two volumes cannot be seen at one folder"),
        (("k8s", *PLAIN, "--input", "in"), "--input 'in': a container sees no such folder; give"),
        (("k8s", *PLAIN, "--volume", "a:/a", "--out", "/ab"), "--out '/ab': a container sees no such folder"),
        (("k8s", *PLAIN, "--volume", "a:/a", "--out", "/a/../b"), "--out '/a/../b': a container sees no such"),
        (("k8s", *PLAIN, "--volume", "a:/a", "--out", "/a/b"), None),
        (("ray", *PLAIN[:-2]), "--image: name the container"),
        (("slurm", *PLAIN[:-2]), None),
        (("slurm", *PLAIN, "--secret", "s3"), "--secret and --volume are for Kubernetes"),
        (("ray", *PLAIN, "--model", "mine.onnx"), "--model 'mine.onnx': give its whole path"),
        (("slurm", *PLAIN, "--out", "b\udcff"), r"--out 'b\udcff': is not UTF-8"),
        (("slurm", *PLAIN, "--out", ""), "--out '': "),
        (("slurm", *PLAIN, "--shard", "1/2"), "--shard is set by the template"),
        (("slurm", *PLAIN, "pictures"), "unexpected 'pictures'; name images and folders with --input"),
        (("slurm", *PLAIN, "--", "--"), "unexpected '--'"),
        (("slurm", *PLAIN, "--thresh", "1"), "no such option: --thresh"),
        (("slurm", *PLAIN, "--threshold", "2"), "--threshold 2: should be less than"),
        (("slurm", *PLAIN, "--tile"), "option '--tile' requires an argument"),
    ],
)
def test_what_cannot_be_is_one_line(cli: Cli, typed: tuple[str, ...], said: str | None) -> None:
    result = cli("cluster-template", *typed)
    if said is None:
        assert result[0] == 0
    else:
        assert_refused(result, said)
