"""cluster/ and .rayignore against the pinned versions, Ray's own schema and KubeRay's field names."""

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files
from ray.autoscaler._private.util import prepare_config, validate_config

import raykd
from raykd.config import Config, load_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"

# Field names of ray.io/v1 (KubeRay, ray-operator/apis/ray/v1/*_types.go) and of Kubernetes' pods, as far as we may use them.
RAY_JOB = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "rayClusterSpec",
    "submitterPodTemplate",
    "metadata",
    "clusterSelector",
    "submitterConfig",
    "managedBy",
    "deletionStrategy",
    "entrypoint",
    "runtimeEnvYAML",
    "jobId",
    "submissionMode",
    "entrypointResources",
    "entrypointNumCpus",
    "entrypointNumGpus",
    "ttlSecondsAfterFinished",
    "shutdownAfterJobFinishes",
    "suspend",
}
RAY_CLUSTER = {
    "headGroupSpec",
    "workerGroupSpecs",
    "rayVersion",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headServiceAnnotations",
    "suspend",
}
AUTOSCALER = {
    "resources",
    "image",
    "imagePullPolicy",
    "env",
    "envFrom",
    "volumeMounts",
    "idleTimeoutSeconds",
    "upscalingMode",
}
HEAD_GROUP = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_GROUP = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "numOfHosts",
    "rayStartParams",
    "template",
    "scaleStrategy",
}
POD = {"serviceAccountName", "containers", "volumes", "tolerations", "nodeSelector", "imagePullSecrets"}
CONTAINER = {"name", "image", "ports", "resources", "volumeMounts", "env", "envFrom", "imagePullPolicy"}


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


@pytest.fixture(scope="module")
def aws() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


@pytest.fixture(scope="module")
def ray_job() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())


def config_of(command: str, config_folder: Path) -> Config:
    """The config that a `python -m raykd.distill --config FILE key=value ...` asks for."""
    python, dash_m, module, flag, config, *overrides = shlex.split(command)
    assert (python, dash_m, module, flag) == ("python", "-m", "raykd.distill", "--config")
    return load_config(str(config_folder / config), overrides)


# Versions


def test_constraints_pin_everything_raykd_asks_for() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    pins = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    asked = re.findall(
        r'^\s*(?:\w+ = \[)?"([A-Za-z0-9_-]+)(?:\[.*\])?[>=<]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert "torch" in asked
    assert not {name.lower() for name in asked} - pins - {"setuptools"}
    assert "raykd" not in pins


def test_every_ray_version_is_the_pinned_one(ray_job: dict[str, Any]) -> None:
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    for file in ("aws.yaml", "Containerfile"):
        images = re.findall(r"rayproject/ray:(\S+?)-(py\d+)-(?:cpu|gpu)", (CLUSTER / file).read_text())
        assert images
        assert set(images) == {(pinned("ray"), "py311")}


def test_our_image_is_this_release(ray_job: dict[str, Any]) -> None:
    tagged = re.findall(r"raykd:([\d.]+)", (CLUSTER / "rayjob.yaml").read_text() + (CLUSTER / "Containerfile").read_text())
    assert set(tagged) == {raykd.__version__}


def test_the_container_copies_what_the_build_needs() -> None:
    instructions = [line.split() for line in (CLUSTER / "Containerfile").read_text().splitlines() if line[:1].isalpha()]
    copied = [source for word, *rest in instructions if word == "COPY" for source in rest[1:-1]]
    assert {"constraints.txt", "pyproject.toml", "README.md", "raykd", "configs"} == set(copied)
    assert all((ROOT / source).exists() for source in copied)
    assert ["RUN", "pip", "install", "--no-cache-dir", "-c", "constraints.txt", "."] in instructions


# AWS


def test_the_aws_cluster_passes_rays_own_validation(aws: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(aws)))


def test_the_aws_cluster_has_a_cpu_head_gpu_workers_and_cpu_workers(aws: dict[str, Any]) -> None:
    types = dict(aws["available_node_types"])
    head = types.pop(aws["head_node_type"])
    assert "GPU" not in head["resources"]
    assert aws["docker"]["head_image"].endswith("-cpu")
    assert aws["max_workers"] == sum(node["max_workers"] for node in types.values())
    for node in types.values():
        image = node.get("docker", {}).get("worker_image", aws["docker"]["worker_image"])
        assert image.endswith("-gpu" if node["resources"].get("GPU") else "-cpu")
        assert 0 <= node["min_workers"] <= node["max_workers"]
    assert sorted("GPU" in node["resources"] for node in types.values()) == [False, True]


def test_the_job_in_the_aws_comment_fits_its_cluster(aws: dict[str, Any]) -> None:
    comment = re.sub(r"\\?\n#\s*", " ", (CLUSTER / "aws.yaml").read_text())
    (command,) = re.findall(r"-- +(python -m raykd\.distill .*?) +ray down", comment)
    config = config_of(command.replace("\\", ""), ROOT)
    gpus = sum(node.get("min_workers", 0) * node["resources"].get("GPU", 0) for node in aws["available_node_types"].values())
    assert config.cluster.num_workers == gpus
    assert config.output_dir.startswith("s3://")


def test_aws_nodes_install_with_our_pins(aws: dict[str, Any]) -> None:
    (folder,) = aws["file_mounts"]
    assert aws["file_mounts"][folder] == "."
    assert aws["setup_commands"][-1] == f"pip install -c {folder}/constraints.txt {folder}"


# Kubernetes


def test_the_ray_job_uses_fields_that_kuberay_has(ray_job: dict[str, Any]) -> None:
    assert (ray_job["apiVersion"], ray_job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(ray_job) == {"apiVersion", "kind", "metadata", "spec"}
    spec = ray_job["spec"]
    cluster = spec["rayClusterSpec"]
    assert set(spec) <= RAY_JOB
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["autoscalerOptions"]) <= AUTOSCALER
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert group is cluster["headGroupSpec"] or set(group) <= WORKER_GROUP
        assert {type(value) for value in group["rayStartParams"].values()} <= {str}
        assert set(group["template"]["spec"]) <= POD
        assert set(group["template"]["spec"]["containers"][0]) <= CONTAINER


def test_the_ray_job_ends_and_tracks(ray_job: dict[str, Any]) -> None:
    spec = ray_job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["MLFLOW_TRACKING_URI"].startswith("http://")


def test_the_ray_job_asks_for_what_its_cluster_has(ray_job: dict[str, Any]) -> None:
    cluster = ray_job["spec"]["rayClusterSpec"]
    gpus = 0
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        gpus += group["minReplicas"] * int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
    command = ray_job["spec"]["entrypoint"].replace("/home/ray/raykd/", "")
    config = config_of(command, ROOT)
    assert "WORKDIR /home/ray/raykd" in (CLUSTER / "Containerfile").read_text()
    assert config.cluster.num_workers == gpus
    assert config.cluster.use_gpu
    assert config.output_dir.startswith("s3://")
    assert config.data.cache_dir.startswith("s3://")


# What a job uploads


def test_the_upload_holds_the_code_and_nothing_heavy() -> None:
    ignored = get_excludes_from_ignore_files(ROOT, include_gitignore=False)

    def uploaded(path: str) -> bool:
        return not any(excludes(ROOT / path) for excludes in ignored)

    for path in ("raykd/distill.py", "raykd/data/corpus.py", "configs/quickstart.yaml", "pyproject.toml", "constraints.txt"):
        assert uploaded(path), path
    for path in (
        "runs",
        "cache",
        "mlruns",
        "mlflow.db",
        ".mypy_cache",
        "raykd/__pycache__",
        "tests",
        "raykd.egg-info",
        "a/b.flac",
    ):
        assert not uploaded(path), path
