"""submit and upload against a server over HTTP: what is sent, what is printed, how it ends."""

import hashlib
import re
import subprocess

import pytest
import yaml
from kfp_models import problems
from kfp_server import Fault

from components import _releases, _submit, _wait
from robolift.errors import UsageError

MODELS = {"/experiments": "V2beta1Experiment", "/pipelines": "V2beta1Pipeline", "/runs": "V2beta1Run"}


def test_a_run_is_sent_as_the_published_models_have_it(kfp, submit):
    done = submit("--set", "lookahead=20", "--set", "stages.train_value.steps=700", "--run", "first try")
    assert done.err == ""
    assert done.code == 0
    (experiment,) = kfp.state.sent("POST", "/experiments")
    assert experiment.body == {"display_name": "robolift", "namespace": ""}
    (run,) = kfp.state.sent("POST", "/runs")
    assert run.headers["content-type"] == "application/json"
    assert problems(run.body, "V2beta1Run") == []
    assert run.body["display_name"] == "first try"
    assert run.body["experiment_id"] == next(iter(kfp.state.experiments))
    assert run.body["runtime_config"] == {
        "parameters": {"output_root": "s3://bucket/runs", "lookahead": 20, "stages": {"train_value": {"steps": 700}}}
    }
    spec = run.body["pipeline_spec"]
    spec = spec.get("pipeline_spec", spec)
    assert spec["pipelineInfo"]["name"] == "recap"
    assert set(run.body) == {"experiment_id", "display_name", "pipeline_spec", "runtime_config"}
    run_id = next(iter(kfp.state.runs))
    assert f"submitted:  {kfp.origin}/#/runs/details/{run_id}\n" in done.out
    assert f"server:     {kfp.origin} (Kubeflow Pipelines 2.17.0)\n" in done.out
    assert "lookahead = 20" in done.out


def test_the_checker_of_bodies_finds_what_the_models_do_not_have():
    assert problems({"display_name": "x", "name": "y"}, "V2beta1Run") == ["body has no field 'name' in V2beta1Run"]
    assert problems({"run_id": 3}, "V2beta1Run") == ["body.run_id is 3, not str"]
    assert problems({"trigger": {"cron": "x"}}, "V2beta1RecurringRun") == [
        "body.trigger has no field 'cron' in V2beta1Trigger"
    ]
    assert problems({"mode": "ON"}, "V2beta1RecurringRun")[0].startswith("body.mode is 'ON', not one of")
    assert problems({"state_history": [{"state": 1}]}, "V2beta1Run")[0].startswith("body.state_history[0].state is 1")


def test_the_server_refuses_a_field_that_the_models_do_not_have(kfp, submit, monkeypatch):
    real = _submit._options
    monkeypatch.setattr(_submit, "_options", lambda args: {**real(args), "service_account": 7})
    done = submit()
    assert done.code == 64
    assert "body.service_account is 7, not str" in done.err
    assert not kfp.state.runs


def test_the_account_and_root_of_a_run_are_sent_only_when_given(kfp, submit):
    submit("--service-account", "robolift-launcher", "--pipeline-root", "s3://bucket/kfp")
    body = kfp.state.sent("POST", "/runs")[0].body
    assert body["service_account"] == "robolift-launcher"
    assert body["runtime_config"]["pipeline_root"] == "s3://bucket/kfp"


def test_two_runs_share_an_experiment_and_no_name(kfp, submit):
    submit("--experiment", "grasping")
    submit("--experiment", "grasping")
    assert [e["display_name"] for e in kfp.state.experiments.values()] == ["grasping"]
    names = [run["display_name"] for run in kfp.state.runs.values()]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"recap \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [0-9a-f]{4}", name) for name in names)


def test_an_experiment_that_somebody_else_makes_meanwhile_is_used(kfp, submit):
    kfp.state.faults = [Fault("POST", "/experiments$", 409, '{"message": "Already exist error"}', after=True)]
    assert submit().code == 0
    assert len(kfp.state.experiments) == 1
    assert len(kfp.state.runs) == 1


def test_several_users_need_a_namespace_and_get_it_in_every_request_that_has_one(kfp, submit):
    kfp.state.multi_user = True
    done = submit()
    assert done.code == 64
    assert "serves several users and no namespace is named" in done.err
    assert [r.method for r in kfp.state.requests] == ["GET"]
    assert submit("--namespace", "team", "--release").code == 0
    assert kfp.state.sent("POST", "/experiments")[0].body["namespace"] == "team"
    assert kfp.state.sent("POST", "/pipelines")[0].body["namespace"] == "team"
    assert kfp.state.sent("GET", "/pipelines")[0].query["namespace"] == "team"


def test_a_server_for_one_user_is_sent_no_namespace(kfp, submit):
    assert submit("--namespace", "kubeflow", "--release").code == 0
    assert not any(r.query.get("namespace") for r in kfp.state.requests)
    assert not any((r.body or {}).get("namespace") for r in kfp.state.sent("POST") if isinstance(r.body, dict))


def test_a_release_is_uploaded_once_and_run_by_its_version(kfp, submit, package):
    first, second = submit("--release"), submit("--release")
    assert (first.code, second.code) == (0, 0)
    (pipeline,) = kfp.state.sent("POST", "/pipelines")
    assert problems(pipeline.body, "V2beta1Pipeline") == []
    assert (pipeline.body["name"], pipeline.body["display_name"]) == ("recap", "recap")
    (upload,) = kfp.state.sent("POST", "/pipelines/upload_version")
    assert upload.headers["content-type"].startswith("multipart/form-data; boundary=")
    content = hashlib.sha256(package.read_bytes()).hexdigest()[:8]
    assert re.fullmatch(rf"[0-9a-f]{{12}}(-dirty)?-{content}", upload.query["name"])
    assert upload.query["pipelineid"] == next(iter(kfp.state.pipelines))
    (version,) = kfp.state.files
    assert kfp.state.files[version] == package.read_bytes()
    for run in kfp.state.sent("POST", "/runs"):
        assert problems(run.body, "V2beta1Run") == []
        assert run.body["pipeline_version_reference"] == {
            "pipeline_id": next(iter(kfp.state.pipelines)),
            "pipeline_version_id": version,
        }
        assert "pipeline_spec" not in run.body
    assert f"version:    {upload.query['name']} (uploaded)" in first.out
    assert f"version:    {upload.query['name']} (was there)" in second.out


@pytest.mark.parametrize("door", ["/pipelines$", "/upload_version$"])
def test_a_release_that_somebody_else_uploads_meanwhile_is_used(kfp, submit, door):
    kfp.state.faults = [Fault("POST", door, 409, '{"message": "Already exist error"}', after=True)]
    assert submit("--release").code == 0
    assert (len(kfp.state.pipelines), len(kfp.state.versions), len(kfp.state.runs)) == (1, 1, 1)


def test_upload_starts_nothing_and_needs_no_parameters(kfp, command):
    done = command("upload", "recap")
    assert done.code == 0
    (version,) = kfp.state.versions.values()
    page = f"{kfp.origin}/#/pipelines/details/{version['pipeline_id']}/version/{version['pipeline_version_id']}"
    assert done.out.endswith(f"page:       {page}\n")
    assert not kfp.state.runs
    assert not kfp.state.experiments


def test_a_dry_run_sends_nothing(kfp, command, submit):
    assert submit("--dry-run", "--release", "--wait").code == 0
    assert command("upload", "recap", "--dry-run").code == 0
    schedule = ("schedule", "recap", "--cron", "0 0 2 * * *", "--set", "output_root=/r", "--dry-run")
    assert command(*schedule).code == 0
    assert kfp.state.requests == []


def test_a_wrong_parameter_is_refused_before_anything_is_sent(kfp, submit):
    done = submit("--set", "positive_fracton=0.3")
    assert done.code == 64
    assert "unknown parameter 'positive_fracton'" in done.err
    assert kfp.state.requests == []


@pytest.mark.parametrize(
    ("image", "accepted"),
    [
        (f"registry.example/robolift-cpu@sha256:{'0' * 64}", True),
        ("registry.example/robolift-cpu:1.0", False),
        ("registry.example/robolift-cpu@sha256:00", False),
        (f"registry.example/robolift-cpu@sha256:{'0' * 64}x", False),
    ],
)
def test_an_image_is_a_digest_or_tags_are_allowed(kfp, submit, package, tmp_path, monkeypatch, image, accepted):
    spec = {"deploymentSpec": {"executors": {"a": {"container": {"image": image}}, "b": {"importer": {}}}}}
    if accepted:
        _releases.require_digests(spec)
        return
    with pytest.raises(UsageError, match=r"images without a digest: registry\.example/robolift-cpu"):
        _releases.require_digests(spec)
    monkeypatch.setattr(_releases, "require_digests", lambda spec: pytest.fail("not to be called"))
    assert submit("--allow-tags").code == 0


def test_images_named_by_tag_stop_a_submission_and_a_dry_run(kfp, submit, package, monkeypatch):
    from components import _cli

    tagged = package.read_text().replace(f"@sha256:{'a' * 64}", ":1.0")
    assert tagged != package.read_text()

    def compiled(pipeline, path):
        path.write_text(tagged)
        return yaml.safe_load(tagged)

    monkeypatch.setattr(_cli, "compile_to", compiled)
    for done in (submit(), submit("--dry-run")):
        assert done.code == 64
        assert "images without a digest: registry.example/robolift-cpu:1.0" in done.err
        assert "images.lock.json" in done.err
    assert kfp.state.requests == []
    assert submit("--allow-tags").code == 0


def _git(repository, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    return subprocess.run(["git", "-C", repository, *identity, *arguments], check=True, capture_output=True, text=True)


def test_a_version_says_commit_content_and_uncommitted_changes(tmp_path, monkeypatch):
    package = tmp_path / "package.yaml"
    package.write_text("a: 1\n")
    repository = tmp_path / "repository"
    repository.mkdir()
    assert _releases.version_name(package, repository) == "unknown-37b128c5"
    _git(repository, "init", "-q")
    assert _releases.commit(repository) == "unknown"
    (repository / "file").write_text("one")
    _git(repository, "add", "file")
    _git(repository, "commit", "-qm", "one")
    sha = _git(repository, "rev-parse", "HEAD").stdout[:12]
    assert _releases.version_name(package, repository) == f"{sha}-37b128c5"
    (repository / "untracked").write_text("ignored")
    assert _releases.commit(repository) == sha
    (repository / "file").write_text("two")
    assert _releases.version_name(package, repository) == f"{sha}-dirty-37b128c5"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _releases.commit(repository) == "unknown"


def test_a_run_that_may_have_started_is_not_started_twice(kfp, submit):
    kfp.state.faults = [Fault("POST", "/runs$", 503, "upstream connect error", times=9, after=True)]
    done = submit("--run", "once")
    assert done.code == 69
    assert len(kfp.state.sent("POST", "/runs")) == 1
    assert "submitting run 'once'" in done.err
    assert "answered 503: upstream connect error" in done.err
    assert f"may have been started all the same: look for 'once' at {kfp.origin}/#/experiments/details/" in done.err


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_is_safe_to_repeat_is_repeated(kfp, submit, status):
    kfp.state.faults = [
        Fault("GET", "/healthz$", status, "busy", times=3),
        Fault("GET", "/experiments$", status, "busy", times=3),
    ]
    assert submit().code == 0
    assert len(kfp.state.sent("GET", "/healthz")) == 4


def test_the_fourth_repetition_is_the_last(kfp, submit):
    kfp.state.faults = [Fault("GET", "/healthz$", 503, '{"message": "no healthy upstream"}', times=9)]
    done = submit()
    assert done.code == 69
    assert "connecting: " in done.err
    assert "answered 503: no healthy upstream" in done.err
    assert "try again later" in done.err
    assert len(kfp.state.requests) == 4


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43200), ("2d", 172800), ("0.5", 0.5)]
)
def test_durations(text, seconds):
    assert _wait.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5w", "-3", "1h30m"])
def test_no_duration(text):
    with pytest.raises(UsageError, match="is no duration: expected 90"):
        _wait.seconds(text)


def test_a_wrong_timeout_is_refused_before_anything_is_sent(kfp, submit):
    assert submit("--wait", "--timeout", "soon").code == 64
    assert kfp.state.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit",), "the following arguments are required: PIPELINE"),
        (("submit", "recap", "--auth", "password"), "invalid choice: 'password'"),
        (("status",), "the following arguments are required: RUN"),
        (("send", "recap"), "invalid choice: 'send'"),
        (("logs", "1", "--wait"), "unrecognized arguments: --wait"),
    ],
)
def test_a_wrong_call_ends_with_64(kfp, capsys, arguments, message):
    from components import _cli

    with pytest.raises(SystemExit) as ended:
        _cli.main({"recap": None}, arguments)
    assert ended.value.code == 64
    assert message in capsys.readouterr().err
    assert kfp.state.requests == []
