"""Statistics of manifests: what is counted, what is missing, what leaks."""

import json

import numpy as np
import pytest

from tests.whole_runs import command


def write(directory, name, rows):
    file = directory / name
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def row(number, path, answer="low", **fields):
    content = [{"type": "sound", "path": path}, {"type": "text", "text": "How is it?"}]
    messages = [{"role": "user", "content": content}]
    if answer:
        messages.append({"role": "assistant", "content": answer})
    return {"id": f"s{number}", "messages": messages, **fields}


@pytest.fixture
def manifests(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.full(3, float(i)))
    np.save(tmp_path / "copy.npy", np.full(3, 1.0))  # the same content under another name
    train = [
        row(0, "0.npy", object="pump", licence="CC0-1.0"),
        row(1, "1.npy", "high", object="fan"),
        row(2, "1.npy", "low", object="fan"),
    ]
    test = [row(3, "2.npy", object="fan"), row(4, "copy.npy"), row(5, "3.npy", answer=None)]
    return write(tmp_path, "train.jsonl", train), write(tmp_path, "test.jsonl", test)


def test_everything_is_counted_once(manifests, capsys):
    assert command("data", "stats", *manifests, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    train, test = found["manifests"]
    assert (train["samples"], train["broken"], train["objects"]) == (3, [], 2)
    assert train["answers"] == {"low": 2, "high": 1}
    size = len(manifests[0].with_name("0.npy").read_bytes())
    assert train["media"] == {"sound": {"files": 2, "bytes": 2 * size, "missing": []}}
    assert train["licences"] == {"not stated": 2, "CC0-1.0": 1}
    assert test["answers"] == {"low": 2, "": 1}
    assert found["shared"] == [{"manifests": [str(m) for m in manifests], "media": 1, "objects": 1}]


def test_what_is_shared_is_said(manifests, capsys):
    assert command("data", "stats", *manifests) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "train.jsonl: answers low 2, high 1" in shown
    assert "always the most frequent answer would be right in 66.7%" in shown
    assert "train.jsonl and test.jsonl share 1 media and 1 things" in shown


def test_broken_rows_and_missing_media_are_listed(manifests, capsys):
    train, _ = manifests
    train.with_name("0.npy").unlink()
    with train.open("a", encoding="utf-8") as file:
        file.write("{\n")
    assert command("data", "stats", train) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "line 4: a line must be one JSON object" in shown
    assert "0.npy in" in shown
    assert command("data", "stats", train.with_name("none.jsonl")) == 2
    assert "must exist, got no such file" in capsys.readouterr().err
