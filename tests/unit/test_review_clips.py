from __future__ import annotations

import io
import json

import coded_clips
import numpy as np
import pytest
from coded_clips import CLIPS, NUM_FRAMES, PAIRS, code_of, pairs_csv, publish, publish_clips, publish_pairs
from coded_video import read_code
from PIL import Image
from review_server import Page, serving, write_tokens
from test_review_packs import unpack

from robolift import __main__ as command
from robolift import storage
from robolift.annotators.review.events import list_objects, read_object
from robolift.annotators.review.fold import fold
from robolift.annotators.review.footage import ClipFootage
from robolift.annotators.review.job import check_dataset, read_job
from robolift.annotators.review.pairs import ByClip, read_pairs
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.schema import Kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clips(folder):
    return publish_clips(folder)


@pytest.fixture(scope="module")
def words(folder, clips):
    pairs = publish_pairs(folder, clips)
    said = ["review", "--clips", clips.uri, "--pairs", pairs.uri, "--labels", str(folder / "labels"), "--port", "0"]
    return [*said, "--overlap", "1", "--tokens", write_tokens(folder)]


@pytest.fixture(scope="module")
def people(words):
    with serving(*words) as address:
        pages = [Page(address, name).open() for name in ("alice", "bob")]
        yield pages
        for page in pages:
            page.close()


@pytest.fixture(scope="module")
def page(people):
    return people[0]


def codes(body):
    pictures = [np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in unpack(body)]
    return [read_code(picture) for picture in pictures]


def states(folder):
    names = list_objects(str(folder / "labels"))
    return fold([event for name in names for event in read_object(str(folder / "labels" / name), [])], [])


def test_only_pairs_are_asked(page, clips):
    assert page.facts["modes"] == ["pair"]
    assert page.facts["dataset"] == {
        "fps": 15.0,
        "cameras": ["clip"],
        "tasks": [],
        "num_episodes": 0,
        "version": clips.digest,
    }
    assert page.get("/api/items").json() == []
    assert page.post("/api/next", mode="episode").json()["item"] is None
    for path in ("", "/frames/clip", "/lanes", "/mine", "/others"):
        assert page.get(f"/api/episodes/0{path}").status_code == 404


def test_a_pair_shows_its_clips_frame_by_frame(page):
    for pair_id, first, second in PAIRS:
        pair = page.get(f"/api/pairs/{pair_id}").json()
        wanted = (second, first) if pair["flipped"] else (first, second)
        for side, number in zip("ab", wanted, strict=True):
            assert pair[side] == {"clip": number, "start": 0, "stop": NUM_FRAMES}
            facts = page.get(f"/api/clips/{number}").json()
            assert (facts["length"], facts["fps"], facts["cameras"]) == (NUM_FRAMES, 15.0, {"clip": [32, 64]})
            body = page.get(f"/api/clips/{number}/frames/clip?start=3&stop=9").content
            assert codes(body) == [(code_of(number), frame) for frame in range(3, 9)]


def test_nothing_tells_what_to_think_of_a_clip(page):
    page.take("pair:p1")
    paths = ["session", "pairs/p1", "pairs/p1/mine", "clips/2", "items?mode=pair", "progress", "disagreements"]
    told = "".join(page.get(f"/api/{path}").text for path in paths)
    for secret in (*CLIPS, "epic_07", "ego_3", "annotated", "random", "secret narration"):
        assert secret not in told
    page.post("/api/lease", item="pair:p1", action="release", epoch=1)


@pytest.mark.parametrize(
    "path",
    [
        "/api/clips/4",
        "/api/clips/-1",
        "/api/clips/99999999999999999999",
        f"/api/clips/{CLIPS[0]}",
        "/api/clips/../../../../etc/passwd",
        "/api/clips/..%2F..%2Fclips.parquet",
        "/api/clips/0%00",
        "/api/clips/4/frames/clip",
        "/api/clips/0/frames/observation.images.top",
        "/api/clips/0/frames/../../clips.parquet",
        "/api/clips/0/frames/..%2F..%2Fmanifest.json",
        "/api/clips/0/frames/clip?start=0&stop=0",
        "/api/clips/0/frames/clip?start=12",
        "/api/clips/0/frames/clip?start=-1&stop=2",
        "/api/pairs/p9",
        "/api/pairs/..%2Fp0",
        "/api/pairs/p9/mine",
    ],
)
def test_what_is_not_there_is_refused(page, path):
    assert page.get(path).status_code in (404, 422)


@pytest.mark.parametrize("item", ["pair:p9", "clip:0", "episode:0", f"pair:{CLIPS[0]}", "pair:../p0"])
def test_forged_items_are_refused(page, item):
    assert page.post("/api/lease", item=item, action="take").status_code == 404
    assert page.send(item, 1, page.event("prefer", "A")).status_code == 404


def test_preferences_are_about_the_pairs_clips_whoever_saw_them_how(people, folder):
    seen = set()
    for page in people:
        for pair_id, first, second in PAIRS:
            pair = page.get(f"/api/pairs/{pair_id}").json()
            better = min(first, second)  # both people like the clip with the lower number
            said = "A" if pair["a"]["clip"] == better else "B"
            page.do(f"pair:{pair_id}", page.event("prefer", said), page.event("complete"))
            page.post("/api/lease", item=f"pair:{pair_id}", action="release", epoch=page.take(f"pair:{pair_id}"))
            assert page.get(f"/api/pairs/{pair_id}/mine").json()["state"]["preference"] == said
            seen.add(said)
    assert seen == {"A", "B"}
    stored = states(folder)
    for name in ("alice", "bob"):
        found = {pair_id: stored[name, f"pair:{pair_id}"].preference for pair_id, _, _ in PAIRS}
        # The repeat p3 is p0 with sides exchanged: the same judgement is the other letter.
        assert found == {"p0": "A", "p1": "B", "p2": "B", "p3": "B"}
    report = people[0].get("/api/progress").json()
    assert report["pairs"] == {"total": 4, "done": 4, "mine": 4, "skipped": 0, "leased": 0}
    assert report["agreement"]["preference"] == 1.0


def test_an_incomplete_comparison_is_no_answer(people):
    page = people[0]
    answer = page.send("pair:p0", page.take("pair:p0"), page.event("prefer", None))
    assert answer.status_code == 422
    assert page.send("pair:p0", page.take("pair:p0"), page.event("paint", 1, 0, 3)).status_code == 422


def test_the_job_is_of_these_clips(folder, clips, people, dataset):
    labels = str(folder / "labels")
    job = read_job(labels)
    assert (job.clips, job.dataset, job.ask) == (clips.digest, (), ())
    assert storage.read_bytes(f"{labels}/pairs.csv").decode() == pairs_csv()
    with pytest.raises(DataError, match="work on other clips"):
        check_dataset(job, Dataset.open(dataset), where=labels)


def test_a_list_of_pairs_needs_no_output(clips, tmp_path):
    (tmp_path / "mine.csv").write_text("pair_id,clip_a_id,clip_b_id\nx,ego_3_00000120,epic_07_00000030\n")
    footage = ClipFootage(clips)
    pair = read_pairs(str(tmp_path / "mine.csv"), footage.naming)["x"]
    assert (pair.a.number, pair.b.number, pair.ids) == (3, 0, (CLIPS[3], CLIPS[0]))


@pytest.mark.parametrize("row", ["x,ego_3_00000120,other", "x,ego_3_00000120", "../x,ego_3_00000120,ego_3_00000120"])
def test_a_wrong_pair_of_clips_is_named_by_its_line(tmp_path, row):
    (tmp_path / "pairs.csv").write_text(f"pair_id,clip_a_id,clip_b_id\n{row}\n")
    with pytest.raises(DataError, match=r"(?s)pairs\.csv, line 2.*pair_id,clip_a_id,clip_b_id"):
        read_pairs(str(tmp_path / "pairs.csv"), ByClip(CLIPS, [NUM_FRAMES] * 4))


def test_other_footage_is_refused(clips, folder, tmp_path, dataset):
    footage = ClipFootage(clips)
    for number, camera in ((4, "clip"), (-1, "clip"), (0, "top")):
        with pytest.raises(UsageError, match="no camera"):
            footage.video(number, camera)
    with pytest.raises(UsageError, match="expected a ClipSet"):
        ClipFootage(dataset)
    with pytest.raises(DataError, match="clips of 2 rates"):
        ClipFootage(publish_clips(tmp_path, fps=[15.0, 15.0, 15.0, 30.0]))
    empty = publish(str(tmp_path), "extract_clips", Kind.CLIPS, {"clips.parquet": coded_clips.clips_table([])})
    with pytest.raises(DataError, match="clips of 0 rates"):
        ClipFootage(empty)


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        (["--ask", "outcome"], 64, "--ask: of episodes"),
        (["--values", "x", "--rewards", "y"], 64, "--rewards, --values: of episodes"),
        (["--pairs", ""], 64, "nothing is asked: give --pairs"),
        (["--pairs", "OTHER"], 65, "these pairs are of other clips"),
        (["--dataset", "x"], 64, "not allowed with"),
    ],
)
def test_what_does_not_fit_is_refused(words, clips, tmp_path, capsys, changed, code, says):
    other = publish_pairs(tmp_path, coded_clips.publish(str(tmp_path), "extract_clips", Kind.CLIPS, {"x.json": {}}))
    changed = [word.replace("OTHER", other.uri) for word in changed]
    said = [word for word in words if word != str(tmp_path)]
    said[said.index("--labels") + 1] = str(tmp_path / "labels")
    try:
        found = command.main([*said, *changed])
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    assert says in capsys.readouterr().err


def test_a_labels_folder_of_other_clips_is_refused(words, folder, people, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    job = json.loads((folder / "labels" / "job.json").read_text())
    said = list(words)
    said[said.index("--labels") + 1] = str(labels)
    for other, told in ({"clips": "e" * 16}, "other clips"), ({"clips": ""}, "another dataset"):
        (labels / "job.json").write_text(json.dumps({**job, **other}))
        assert command.main(said) == 65
        assert f"this is the work on {told}" in capsys.readouterr().err
