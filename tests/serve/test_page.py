import base64

import httpx
import pytest

from pathweave.evaluate.gates import gate_usage
from pathweave.serve.in_process import InProcess
from pathweave.serve.page import paths_taken
from pathweave.serve.service import Limits, Service
from tests.serve.senses import DECODERS, assistant_of_all, files_of_all
from tests.serve.served import served
from tests.tiny import chain, medium, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def served_page(tmp_path_factory, finished_run):
    """A server of a model that reads everything; its scores and examples are those of a run."""
    assistant = assistant_of_all(tmp_path_factory.mktemp("features"))
    service = Service(assistant, InProcess(assistant.model), "tiny", Limits(max_body=1 << 20))
    with served(service, root=finished_run) as address, httpx.Client(base_url=address) as client:
        yield client, assistant


@pytest.fixture(scope="module")
def client(served_page):
    return served_page[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return files_of_all(tmp_path_factory.mktemp("media"))


def asked(name, file):
    data = base64.b64encode(file.read_bytes()).decode()
    part = {"type": f"{name}_url", f"{name}_url": {"url": f"data:;base64,{data}"}}
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]}


def test_the_page_is_small_and_may_load_nothing_from_elsewhere(client):
    total = 0
    for file in ("/", *(f"/page/files/{name}" for name in ("app.js", "draw.js", "style.css"))):
        made = client.get(file)
        assert made.status_code == 200
        policy = made.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert "http" not in made.text
        total += len(made.content)
    assert total < 1_000_000


def test_about_tells_modalities_paths_and_scores(client, finished_run):
    about = client.get("/page/about").json()
    assert [each["name"] for each in about["modalities"]] == list(DECODERS)
    assert about["models"]["tiny:tilt"] == "tilt"
    assert list(about["paths"]) == ["sight", "sound", "tilt"]
    assert about["paths"]["tilt"]["predecessors"] == ["sound"]
    assert about["paths"]["tilt"]["bytes"] > 1000
    assert about["results"]["scores"]["curriculum"] == ["sight", "sound", "tilt"]


def test_a_medium_is_looked_at(client, files):
    data = base64.b64encode(files["range"].read_bytes()).decode()
    shown = client.post("/page/preview", json={"name": "a.png", "data": data}).json()
    assert (shown["kind"], shown["modality"]) == ("map", "range")
    told = {"name": "a.png", "data": data, "modality": "photo"}
    assert client.post("/page/preview", json=told).json()["kind"] == "frames"
    told["modality"] = "noise"
    refused = client.post("/page/preview", json=told)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("a.png must be a whole sound")
    assert client.post("/page/preview", json={"name": "a", "data": "%"}).status_code == 400


def test_examples_are_those_whose_media_can_be_read(client, recipe_file):
    examples = client.get("/page/examples").json()
    assert {each["modality"] for each in examples} == {"tilt"}
    assert len(examples) == 3
    first = examples[0]
    assert (first["text"], first["choices"], first["references"]) == (
        "How is it?", ["low", "high"], ["low"],
    )  # fmt: skip
    [shown] = first["media"]
    data = client.get(f"/{shown['url']}").content
    assert data == (recipe_file.parent / "tilt-test-0.npy").read_bytes()
    assert client.get("/page/examples/99/0").status_code == 404
    assert client.get("/page/examples/0/1").status_code == 404


def test_the_path_of_a_medium_is_told_with_what_its_gates_mix(served_page, files):
    client, assistant = served_page
    [way] = client.post("/page/paths", json=asked("shape", files["shape"])).json()
    assert (way["path"], way["units"], way["features"], way["tokens"]) == ("shape", 1, [3, 12], 3)
    assert way["builds_on"] == ["film", "noise", "range"]
    content = [{"type": "shape", "path": str(files["shape"])}, {"type": "text", "text": "What?"}]
    part, text = assistant.prompt(content)
    expected = gate_usage(assistant.model, "shape", [part.features], [text])
    assert way["gates"]["all"] == pytest.approx(expected, abs=1e-4)
    for weights in way["gates"]["groups"].values():
        assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    assert any(name.startswith("layer_0/") for name in way["gates"]["groups"])
    unknown = client.post("/page/paths", json=asked("smell", files["shape"]))
    assert (unknown.status_code, "smell" in unknown.json()["error"]["message"]) == (400, True)


def test_each_medium_of_a_prompt_has_its_own_way():
    model = tiny_model(*chain("sight", "sound", "range"))
    prompt = [medium("range", units=2), medium("sight"), "What?"]
    first, second = paths_taken(model, prompt)
    assert (first["path"], first["units"]) == ("range", 2)
    assert second["gates"] == {"all": {}, "groups": {}}


def test_a_server_with_a_key_shows_the_page_and_tells_nothing(served_page, finished_run):
    _, assistant = served_page
    service = Service(assistant, InProcess(assistant.model), "tiny")
    with served(service, key="secret", root=finished_run) as address:
        assert httpx.get(address).status_code == 200
        for route in ("about", "examples"):
            assert httpx.get(f"{address}/page/{route}").status_code == 401
        known = {"Authorization": "Bearer secret"}
        assert httpx.get(f"{address}/page/about", headers=known).status_code == 200
