"""docs/cluster.md: its commands, walked through for each kind of cluster, and what it says of versions and files."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import pytest
import yaml
from guide_programs import GUIDE, KUBECTL, LOCK, TITLES, Walk, commands, section, walk, workplace
from rendered_chart import CHART, ROOT, merge, render, validate

from robolift.launch import preflight

OVERLAYS = ("gke", "eks", "kind")
CLOUDS = ("gke", "eks")
SEVERAL = "Several users"
VERSIONS = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "k8s" / "versions.env").read_text(), flags=re.MULTILINE))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Walk]:
    """The guide from its first command to the last, for each kind of cluster."""
    if KUBECTL is None:
        pytest.skip("no kubectl on this machine; `make chart` fetches one into the environment")
    done = {}
    for overlay in OVERLAYS:
        folder = tmp_path_factory.mktemp(overlay)
        workplace(folder)
        if overlay in CLOUDS:
            (site,) = re.findall(r"```yaml\n(.*?)```", section(TITLES[overlay]), flags=re.DOTALL)
            (folder / "site.yaml").write_text(site)
            (folder / "images.lock.json").write_text(json.dumps(LOCK))
        titles = [TITLES[overlay], "On every cluster", *([SEVERAL] if overlay in CLOUDS else [])]
        start = commands(GUIDE.split("## GKE\n", 1)[0], overlay) + f"\nexport OVERLAY={overlay}\n"
        done[overlay] = walk(folder, start + "\n".join(commands(section(title), overlay) for title in titles))
    return done


def submitted(said: str) -> dict[str, object]:
    """Return the parameters of the plan that a submission prints."""
    found = re.findall(r"^  (\w+) = (.*?)(?:   \(default\))?$", said, flags=re.MULTILINE)
    return {name: ast.literal_eval(value) for name, value in found}


def site(walk: Walk) -> dict:
    return merge(
        yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load((walk.folder / "site.yaml").read_text())
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_chart_renders_with_the_guides_flags_and_images_that_there_are(walked, overlay):
    calls = walked[overlay].of("helm upgrade --install robolift ")
    assert [call.value("-n") for call in calls] == ["kubeflow", "team-a"][: 2 if overlay in CLOUDS else 1]
    for call in calls:
        objects = render(walked[overlay].chart_values(call))
        for item in objects:
            validate(item)
        (pod,) = (item for item in objects if item["kind"] == "Pod")
        (container,) = pod["spec"]["containers"]
        if overlay in CLOUDS:
            assert container["image"] == LOCK["cpu"]
        else:
            assert (container["image"], container["imagePullPolicy"]) == ("robolift-cpu:0.1.0", "Never")
            assert any(
                str(done) == "kind load docker-image robolift-cpu:0.1.0 --name robolift"
                for done in walked[overlay].calls
            )
        assert walked[overlay].of(f"helm test robolift -n {call.value('-n')} --logs")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_submission_computes_where_the_site_file_puts_it(walked, overlay):
    (call,) = walked[overlay].of("make submit")
    parameters, told = submitted(call.said), site(walked[overlay])
    assert str(parameters["output_root"]).startswith(told["storage"]["root"])
    pool = next(pool for pool in told["pools"] if pool["name"] == told["trainer"]["pool"])
    train = parameters["stages"]["train_value"]
    # A process a GPU and all of a pod's, or the pod would train on less than it holds.
    assert train["num_processes"] % told["trainer"]["processesPerNode"] == 0
    devices = [parameters["stages"].get(stage, {}).get("device", "cpu") for stage in ("train_value", "predict_values")]
    assert devices == ["cuda" if pool["gpus"] else "cpu"] * 2
    # The policy's step holds all GPUs of its node.
    assert told["policyTrainer"] | {"backend": "process", "pool": pool["name"]} == told["policyTrainer"]
    assert parameters["stages"].get("train_policy", {}).get("num_devices", 1) == max(1, pool["gpus"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_submission_runs_as_an_account_of_the_chart(walked, overlay):
    (call,) = walked[overlay].of("make submit")
    (chart, *_) = walked[overlay].of("helm upgrade --install robolift ")
    accounts = {
        i["metadata"]["name"] for i in render(walked[overlay].chart_values(chart)) if i["kind"] == "ServiceAccount"
    }
    (account,) = (word.partition("=")[2] for word in call.args if word.startswith("SERVICE_ACCOUNT="))
    assert account in accounts


def test_the_web_server_of_kubeflow_may_read_the_bucket_and_no_more(walked):
    (gke,) = (str(call) for call in walked["gke"].calls if "ml-pipeline-ui" in str(call) and call.name == "gcloud")
    assert "--role=roles/storage.objectViewer" in gke
    assert "projects/123456789012/locations/global/workloadIdentityPools/example-project.svc.id.goog/subject/" in gke
    (eks,) = (str(call) for call in walked["eks"].of("eksctl create podidentityassociation"))
    assert "--namespace=kubeflow --service-account-name=ml-pipeline-ui" in eks
    assert "--permission-policy-arns=arn:aws:iam::111122223333:policy/robolift-read" in eks
    statements = json.loads((walked["eks"].folder / "read.json").read_text())["Statement"]
    actions = {
        action
        for each in statements
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    }
    assert actions == {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"}
    assert {each["Resource"] for each in statements} == {"arn:aws:s3:::example-bucket", "arn:aws:s3:::example-bucket/*"}


def test_accounts_of_a_profile_have_the_identities_of_the_first_ones(walked):
    bound = [str(call) for call in walked["gke"].of("gcloud iam service-accounts add-iam-policy-binding")]
    pairs = {(re.findall(r"robolift-\w+(?=@)", line)[0], re.findall(r"\[(.*)\]", line)[0]) for line in bound}
    assert pairs == {
        ("robolift-launcher", "kubeflow/robolift-launcher"),
        ("robolift-trainer", "kubeflow/robolift-trainer"),
        ("robolift-launcher", "team-a/default-editor"),
        ("robolift-launcher", "team-a/robolift-launcher"),
        ("robolift-trainer", "team-a/robolift-trainer"),
    }
    made = {(call.args[3], call.args[4]): call.args[5] for call in walked["eks"].of("eksctl create iamserviceaccount")}
    call = walked["eks"].of("helm upgrade --install robolift ")[1]
    for item in render(walked["eks"].chart_values(call)):
        if item["kind"] == "ServiceAccount" and "annotations" in item["metadata"]:
            name, (arn,) = item["metadata"]["name"], item["metadata"]["annotations"].values()
            assert f"--role-name={arn.rpartition('/')[2]}" == made["--namespace=team-a", f"--name={name}"]
    (editor,) = walked["eks"].of("kubectl -n team-a annotate serviceaccount default-editor")
    assert f"--role-name={editor.args[-1].rpartition('/')[2]}" == made["--namespace=team-a", "--name=default-editor"]


@pytest.mark.parametrize("overlay", CLOUDS)
def test_a_profile_gets_its_own_training_runtime_and_pipeline_root(walked, overlay):
    applied = [item for call in walked[overlay].of("kubectl apply -f -") for item in yaml.safe_load_all(call.stdin)]
    assert [i["metadata"]["namespace"] for i in applied if i["kind"] == "TrainingRuntime"] == ["team-a"]
    launchers = [item for item in applied if item["metadata"]["name"] == "kfp-launcher"]
    assert [item["metadata"]["namespace"] for item in launchers] == ["kubeflow", "team-a"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kueue_is_the_release_and_not_what_a_branch_holds_today(walked, overlay):
    (install, configure, *_) = [str(call) for call in walked[overlay].calls if "kueue" in str(call)]
    assert install.endswith(f"kubernetes-sigs/kueue/releases/download/v{VERSIONS['KUEUE_VERSION']}/manifests.yaml")
    assert configure == "kubectl apply --server-side --force-conflicts -k k8s/base/kueue"


def test_the_readmes_commands_are_those_of_the_guide(tmp_path):
    (block,) = re.findall(r"## On a cluster\n\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    workplace(tmp_path)
    (tmp_path / "site.yaml").write_text("{}")
    (tmp_path / "images.lock.json").write_text(json.dumps(LOCK))
    done = walk(tmp_path, block)
    (chart,) = done.of("helm upgrade")
    assert done.chart_values(chart)["images"] == LOCK
    (call,) = done.of("make submit")
    assert "SERVICE_ACCOUNT=robolift-launcher" in call.args
    assert submitted(call.said)["stages"] == {"train_value": {"device": "cuda"}, "predict_values": {"device": "cuda"}}


def test_the_guide_installs_the_pinned_versions_and_shows_the_same():
    used = set(re.findall(r"\$(\w+_VERSION)\b", GUIDE))
    assert used == set(VERSIONS)
    shown = {name: value for name, value in VERSIONS.items() if name != "KARPENTER_VERSION"}
    assert [name for name, value in shown.items() if f"| {value} |" not in GUIDE] == []


def test_every_file_that_the_guide_names_is_there():
    paths = set(re.findall(r"(?<![\w./])(?:k8s|charts|params|components)/[\w./-]+", GUIDE))
    assert len(paths) >= 8
    assert [path for path in paths if not (ROOT / path.rstrip(".")).exists()] == []


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL))
def test_the_guides_values_are_taken_by_the_chart(block):
    for item in render(yaml.safe_load(block)):
        validate(item)


@pytest.mark.parametrize("block", re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL))
def test_the_guides_commands_are_shell(block):
    subprocess.run(["bash", "-n"], input=block, text=True, check=True, capture_output=True)


def test_the_guide_shows_what_the_preflight_prints():
    (shown,) = re.findall(r"```\n(ok   workflows.*?)```", GUIDE, flags=re.DOTALL)
    for group, version, plural in (preflight.WORKFLOWS, preflight.KINDS["pytorchjob"], preflight.KUEUE):
        assert f"ok   {plural}.{group}/{version} is served\n" in shown
