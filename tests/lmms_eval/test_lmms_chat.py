"""A run as a model of lmms-eval, evaluated by lmms-eval itself on a task with unknown media."""

import json

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")

from pathweave import load
from pathweave.data.manifest import Manifest
from pathweave.errors import PathWeaveError, RequestError

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.filterwarnings("ignore")]

TASK = """
task: tilt
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_messages: !function tilt.to_messages
doc_to_text: ""
doc_to_target: ""
process_results: !function tilt.answered
generation_kwargs: {{max_new_tokens: 5, until: [], temperature: {temperature}}}
metric_list:
  - {{metric: length, aggregation: !function tilt.joined, higher_is_better: true}}
"""
FUNCTIONS = """
def to_messages(doc):
    return [{"role": "user", "content": [{"type": doc["type"], "url": doc["file"]},
            {"type": "text", "text": "What is it?"}]}]

def answered(doc, results):
    return {"length": results[0]}

def joined(items):
    return float(sum(map(len, items)))
"""


@pytest.fixture
def evaluate(recipe_file, finished_run, tmp_path, monkeypatch):
    """Evaluate the run on a task, by lmms-eval; returns the answers."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(kind="tilt", temperature=0, **arguments):
        manifest = Manifest(recipe_file.parent / "tilt-test.jsonl")
        files = [str(recipe_file.parent / manifest[i].prompt[0].path) for i in range(len(manifest))]
        lines = [json.dumps({"type": kind, "file": file}) for file in files]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "tilt.py").write_text(FUNCTIONS, encoding="utf-8")
        text = TASK.format(rows=tmp_path / "rows.jsonl", temperature=temperature)
        (tmp_path / "tilt.yaml").write_text(text, encoding="utf-8")
        found = simple_evaluate(
            model="pathweave",
            model_args=f"run={finished_run}",
            tasks=["tilt"],
            task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
            log_samples=True,
            **{"batch_size": 4, **arguments},
        )
        rows = sorted(found["samples"]["tilt"], key=lambda row: row["doc_id"])
        return files, [row["filtered_resps"][0] for row in rows]

    return run


def test_answers_are_those_of_the_assistant(evaluate, finished_run):
    files, answers = evaluate()
    asked = [[{"type": "tilt", "path": f}, {"type": "text", "text": "What is it?"}] for f in files]
    assert answers == [load(finished_run).ask([question], max_tokens=5)[0] for question in asked]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "smell"}, "a medium must be one of"),
        ({"temperature": 0.7}, "must want the likeliest answer"),
        ({"batch_size": "auto"}, "batch_size must be a number from 1, got 'auto'"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(evaluate, changes, said):
    with pytest.raises(PathWeaveError, match=said):
        evaluate(**changes)


def test_parts_and_stops_are_those_of_lmms_eval():
    from pathweave.lmms_eval.lmms_chat import _part, _until

    sound = {"array": [0.0], "sampling_rate": 8000}
    assert _part({"type": "sound", "url": sound}) == {"type": "sound", "data": [0.0], "rate": 8000}
    assert _part({"type": "sight", "url": b"x"}) == {"type": "sight", "data": b"x"}
    assert _part({"type": "sight", "url": "a.png"}) == {"type": "sight", "path": "a.png"}
    assert _until("one\n\ntwo.three", {"until": ["\n\n", "."]}) == "one"
    assert _until("one.two", {"until": None}) == "one.two"


def test_other_kinds_of_tasks_are_refused(finished_run):
    from pathweave.lmms_eval.lmms_chat import LmmsChat

    model = LmmsChat(str(finished_run))
    for ask in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(RequestError, match="must have output_type generate_until"):
            ask([])
