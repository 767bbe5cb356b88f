"""From files to manifests and a recipe: what is found, how it is split, what is refused."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathweave.data.manifest import Manifest
from pathweave.data.splits import SHARES
from pathweave.decoders import build_decoder
from pathweave.recipe.reading import load_recipe
from pathweave.storage.atomic import sha256_bytes
from tests.tiny import write_tiny_base
from tests.whole_runs import command


def signal(seed, length=100, label="up"):
    """Times and two channels, rising or falling."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, length) * (1 if label == "up" else -1)
    return np.stack([np.arange(length) / 50, ramp, random.normal(size=length)], axis=1)


def write_table(file, rows, header="t,x,y"):
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(f"{cell:.6g}" for cell in row) for row in rows]
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def write_folders(root, count=10, classes=("up", "down"), **options):
    for number, label in enumerate(classes):
        for i in range(count):
            write_table(root / label / f"{i}.csv", signal(100 * number + i, label=label), **options)
    return root


def write_beside(root, count=12, persons=6, endings=".csv", label="move"):
    """Recordings of persons who do both, and a table beside them."""
    rows = [f"person,file,{label},remark"]
    for i in range(count):
        done = ("Going_Up", "going down")[i % 2]
        write_table(root / f"files/{i}{endings}", signal(i))
        rows.append(f"p{i // 2 % persons},files/{i}{endings},{done},none")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def write_long(file, count=8, change=None):
    rows = []
    for i in range(count):
        label = ("up", "down")[i % 2]
        for n, (t, x, y) in enumerate(signal(i, label=label).tolist()):
            row = {"trip": f"trip {i}", "t": t, "x": x, "y": y, "who": f"p{i}", "move": label}
            rows.append(row | ((change or {}) if (i, n) == (3, 50) else {}))
    order = np.random.default_rng(0).permutation(count)  # of recordings; their rows are mixed
    rows.sort(key=lambda row: (row["t"], order[int(row["who"][1:])]))
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def new(capsys, source, *words, name="motion", out=None):
    """Make a modality and return what was found, and its recipe."""
    out = out or source.parent / "made"
    capsys.readouterr()
    code = command("modality", "new", name, "--from", source, "--out", out, "--json", *words)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), load_recipe(out / "recipe.yaml").modalities[name]


def rows_of(out):
    """Return the samples of every split."""
    return {split: list(Manifest(out / f"{split}.jsonl", "collect")) for split in SHARES}


def decode_all(out, modality):
    decoder = build_decoder(modality.decoder.kind, **modality.decoder.options)
    decoded = {}
    for split in SHARES:
        manifest = Manifest(out / f"{split}.jsonl")
        for sample in manifest:
            part = sample.messages[0].content[0]
            decoded[sample.id] = decoder(manifest.read_media(part), sample.id)
    return decoded


def test_folders_of_tables_become_a_recipe_that_reads_them_all(tmp_path, capsys):
    found, modality = new(capsys, write_folders(tmp_path / "rec"), "--question", "Where to?")
    assert (found["recordings"], found["channels"], found["rate"]) == (20, ["x", "y"], 50)
    assert found["seconds"] == [2.0, 2.0, 2.0]
    assert found["classes"] == {"down": 10, "up": 10}
    assert found["splits"] == {"train": 14, "val": 3, "test": 3}
    assert (found["left_out"], found["warnings"], found["with_gaps"]) == ([], [], 0)
    options = {"rate": 50, "channels": ["x", "y"], "time": "t", "seconds": 2.0}
    assert modality.decoder.options == options
    assert modality.patches.model_dump(include={"length", "stride"}) == {"length": 4, "stride": 2}
    decoded = decode_all(tmp_path / "made", modality)
    assert {media.values.shape for media in decoded.values()} == {(1, 100, 2)}
    sample = rows_of(tmp_path / "made")["test"][0]
    medium, text = sample.messages[0].content
    assert (medium.type, medium.path) == ("motion", f"../rec/{sample.id}")
    assert text.text == "Where to?"
    assert sample.answer == sample.id.split("/")[0]


def test_every_line_of_the_recipe_is_explained(tmp_path, capsys):
    new(capsys, write_folders(tmp_path / "rec"))
    text = (tmp_path / "made/recipe.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) > 20
    assert all("  # " in line for line in lines)
    assert f"pathweave extend RUN {tmp_path / 'made/recipe.yaml'}" in text


def test_what_was_found_and_the_next_commands_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path / "rec")
    assert command("modality", "new", "motion", "--from", "rec") == 0
    shown = capsys.readouterr().out
    assert "motion: 20 recordings (tables)" in shown
    assert "channels: 2: x, y; 50 Hz, by the times in column 't'" in shown
    assert "length: 2 s to 2 s, median 2 s" in shown
    assert "classes: down 10, up 10" in shown
    assert "train: 14, val: 3, test: 3" in shown
    evolve, ask = (line.strip() for line in shown.splitlines()[-2:])
    assert evolve == "pathweave evolve motion/recipe.yaml --out runs/motion"
    tested = rows_of(tmp_path / "motion")["test"][0].id
    assert ask == f"pathweave ask runs/motion --motion rec/{tested} 'What is it?'"


@pytest.mark.parametrize("source", ["rec", "rec/labels.csv"])
def test_a_table_beside_the_files_gives_labels_and_groups(tmp_path, capsys, source):
    write_beside(tmp_path / "rec")
    out = tmp_path / "made"
    words = ["--label", "move", "--group", "person"]
    found, modality = new(capsys, tmp_path / source, *words, out=out)
    assert found["classes"] == {"going down": 6, "going up": 6}
    splits = rows_of(out)
    people = {split: {sample.object for sample in rows} for split, rows in splits.items()}
    assert set.union(*people.values()) == {f"p{i}" for i in range(6)}
    assert sum(map(len, people.values())) == 6
    assert all({s.answer for s in rows} == {"going up", "going down"} for rows in splits.values())
    assert len(decode_all(out, modality)) == 12


def test_a_long_table_is_cut_into_recordings(tmp_path, capsys):
    source = write_long(tmp_path / "log.parquet")
    words = ["--label", "move", "--recording", "trip", "--group", "who"]
    found, modality = new(capsys, source, *words)
    assert (found["recordings"], found["channels"], found["rate"]) == (8, ["x", "y"], 50)
    decoded = decode_all(tmp_path / "made", modality)
    for i in range(8):
        expected = signal(i, label=("up", "down")[i % 2])[:, 1:].astype(np.float32)
        assert np.array_equal(decoded[f"trip {i}"].values[0], expected)
    assert {s.object for rows in rows_of(tmp_path / "made").values() for s in rows} == {
        f"p{i}" for i in range(8)
    }
    made = tmp_path / "made"
    moved = shutil.move(made, tmp_path / "elsewhere")
    assert len(decode_all(moved, modality)) == 8


def test_media_far_from_the_manifests_have_absolute_paths(tmp_path, capsys):
    write_folders(tmp_path / "rec")
    _, modality = new(capsys, tmp_path / "rec", out=tmp_path / "far/made")
    sample = rows_of(tmp_path / "far/made")["val"][0]
    assert sample.messages[0].content[0].path == (tmp_path / "rec" / sample.id).as_posix()
    assert len(decode_all(tmp_path / "far/made", modality)) == 20


def test_sounds_get_the_encoder_of_sounds_and_windows_for_the_longest(tmp_path, capsys):
    for label in ("dry", "wet"):
        (tmp_path / "rec" / label).mkdir(parents=True)
        for i in range(4):
            wave = np.random.default_rng(i + 10 * len(label) * (label == "wet")).normal(size=8000)
            file = tmp_path / "rec" / label / f"{i}.wav"
            soundfile.write(file, np.tile(wave / 9, 5 if i == 2 else 1), 8000)
    found, modality = new(capsys, tmp_path / "rec", name="hum")
    assert (found["rate"], found["seconds"]) == (8000, [1.0, 1.0, 5.0])
    assert modality.encoder.kind == "sound-effects"
    assert modality.decoder.options == {"rate": 44100, "seconds": 2.0, "windows": 3}
    lengths = {len(media.samples) for media in decode_all(tmp_path / "made", modality).values()}
    assert lengths == {88200, 3 * 88200}


@pytest.mark.parametrize(
    ("ending", "decoder"), [(".png", "picture"), (".gif", "clip"), (".ply", "points")]
)
def test_other_media_get_the_encoder_of_pictures(tmp_path, capsys, ending, decoder):
    for number, label in enumerate(("dark", "light")):
        (tmp_path / "rec" / label).mkdir(parents=True)
        for i in range(3):
            file = tmp_path / "rec" / label / f"{i}{ending}"
            if ending == ".ply":
                points = np.random.default_rng(10 * number + i).normal(size=(50, 3))
                head = ["ply", "format ascii 1.0", "element vertex 50", *(
                    f"property float {axis}" for axis in "xyz"), "end_header"]  # fmt: skip
                lines = [*head, *(f"{x} {y} {z}" for x, y, z in points)]
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            else:
                Image.new("L", (8, 8), 100 * number + i).save(file)
    _, modality = new(capsys, tmp_path / "rec", name="look")
    assert (modality.decoder.kind, modality.encoder.kind) == (decoder, "efficientnet-lite0")
    assert len(decode_all(tmp_path / "made", modality)) == 6


def test_arrays_are_read_at_the_rate_that_is_given(tmp_path, capsys):
    for number, label in enumerate(("up", "down")):
        (tmp_path / "rec" / label).mkdir(parents=True)
        for i in range(6):
            np.save(tmp_path / "rec" / label / f"{i}.npy", signal(10 * number + i)[:, 1:])
    found, modality = new(capsys, tmp_path / "rec", "--rate", 25)
    assert (found["channels"], found["rate"], found["seconds"]) == (2, 25, [4.0, 4.0, 4.0])
    assert modality.decoder.options == {"rate": 25.0, "channels": 2, "seconds": 4.0}
    assert len(decode_all(tmp_path / "made", modality)) == 12


def test_missing_values_are_masked_and_told(tmp_path, capsys):
    write_folders(tmp_path / "rec")
    file = tmp_path / "rec/up/3.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0] + ","
    file.write_text("\n".join(lines[:20] + lines[22:]), encoding="utf-8")
    found, modality = new(capsys, tmp_path / "rec")
    assert found["with_gaps"] == 1
    assert modality.decoder.options["gaps"] == "mask"
    values = decode_all(tmp_path / "made", modality)["up/3.csv"].values[0]
    assert np.isnan(values).sum(0).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("column", "scale", "start", "words", "unit"),
    [
        ("time", 1, 0, [], None),
        ("Time (ms)", 1e3, 0, [], "ms"),
        ("t_us", 1e6, 0, [], "us"),
        ("timestamp", 1e3, 1_700_000_000_000, [], "ms"),
        ("t", 1e3, 0, ["--rate", 50], "ms"),
    ],
)
def test_times_are_read_in_the_unit_they_are_in(
    tmp_path, capsys, column, scale, start, words, unit
):
    for number, label in enumerate(("up", "down")):
        for i in range(4):
            rows = signal(10 * number + i)
            times = (rows[:, 0] * scale).round(3) + start
            lines = [f"{t:.14g},{x:.4f},{y:.4f}" for t, (_, x, y) in zip(times, rows, strict=True)]
            file = tmp_path / "rec" / label / f"{i}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join([f"{column},x,y", *lines]), encoding="utf-8")
    found, modality = new(capsys, tmp_path / "rec", *words)
    assert found["rate"] == 50
    assert found["seconds"] == pytest.approx([2.0] * 3)
    assert modality.decoder.options.get("time_unit") == unit
    assert len(decode_all(tmp_path / "made", modality)) == 8


def test_dates_are_times_and_a_slow_sensor_has_long_windows(tmp_path, capsys):
    for number, label in enumerate(("up", "down")):
        for i in range(4):
            days = np.datetime64("2026-01-01T00:00:00") + np.arange(100) * np.timedelta64(60, "s")
            values = np.random.default_rng(10 * number + i).normal(size=100)
            lines = [f"{day},{value:.4f}" for day, value in zip(days, values, strict=True)]
            file = tmp_path / "rec" / label / f"{i}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(["date,x", *lines]), encoding="utf-8")
    found, modality = new(capsys, tmp_path / "rec")
    assert (found["rate"], found["warnings"]) == (pytest.approx(1 / 60, rel=1e-4), [])
    assert modality.decoder.options["time"] == "date"
    assert {m.values.shape for m in decode_all(tmp_path / "made", modality).values()} == {
        (1, 100, 1)
    }


def test_long_recordings_are_cut_into_windows_that_hold_all_of_them(tmp_path, capsys):
    for number, label in enumerate(("up", "down")):
        for i in range(3):
            write_table(tmp_path / "rec" / label / f"{i}.csv", signal(10 * number + i, 6600))
    _, modality = new(capsys, tmp_path / "rec")
    options = modality.decoder.options
    assert (options["seconds"], options["windows"]) == (60, 3)
    assert 32 <= 60 * 50 / modality.patches.stride <= 128
    decoded = decode_all(tmp_path / "made", modality)
    assert {m.values.shape for m in decoded.values()} == {(3, 3000, 2)}
    assert np.isfinite(decoded["up/0.csv"].values[:, :, 0]).sum() == 6600


def test_uneven_times_need_a_rate(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    for file in root.rglob("*.csv"):
        rows = np.loadtxt(file, delimiter=",", skiprows=1)
        rows[:, 0] = rows[:, 0] ** 2
        write_table(file, rows)
    assert command("modality", "new", "motion", "--from", root, "--out", tmp_path / "no") == 2
    error = capsys.readouterr().err
    assert "up/9.csv must have evenly spaced times" in error
    assert "--rate HZ" in error
    assert not (tmp_path / "no").exists()
    found, modality = new(capsys, root, "--rate", 10)
    assert "column 't' is not used: up/9.csv must have evenly spaced times" in found["warnings"][0]
    assert (found["channels"], found["seconds"][0]) == (["x", "y"], 10.0)
    assert "time" not in modality.decoder.options


def test_slow_times_without_a_unit_are_doubted(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    for file in root.rglob("*.csv"):
        rows = np.loadtxt(file, delimiter=",", skiprows=1)
        rows[:, 0] *= 1000
        write_table(file, rows)
    found, _ = new(capsys, root)
    assert found["warnings"] == [
        "column 't' is taken as seconds, which gives 0.05 Hz; if it has another unit, give the "
        "right rate: --rate HZ"
    ]


def test_other_rates_are_brought_to_the_usual_one_and_told(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    rows = signal(5, length=200)
    rows[:, 0] /= 2
    write_table(root / "up/0.csv", rows)
    found, modality = new(capsys, root)
    assert found["warnings"] == ["rates from 50 to 100 Hz are brought to 50"]
    assert modality.decoder.options["rate"] == 50
    shapes = {media.values.shape for media in decode_all(tmp_path / "made", modality).values()}
    assert shapes == {(1, 100, 2)}


def test_columns_that_are_no_signal_are_left_out(tmp_path, capsys):
    for number, label in enumerate(("up", "down")):
        for i in range(4):
            lines = [f"{t},{x},{number},fine,{y}" for t, x, y in signal(10 * number + i).tolist()]
            file = tmp_path / "rec" / label / f"{i}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(["t,x,class,state,y", *lines]), encoding="utf-8")
    found, modality = new(capsys, tmp_path / "rec")
    assert found["channels"] == ["x", "y"] == modality.decoder.options["channels"]
    assert modality.encoder.options["channels"] == 2
    assert found["warnings"] == [
        "columns left out, as they hold no numbers: state",
        "columns left out, as they are constant in every recording: class",
    ]


def rewrite(root, change):
    for file in root.rglob("*.csv"):
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


def with_commas(text):
    return text.replace(",", ";").replace(".", ",")


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_decimal_commas_are_found_and_the_recipe_reads_them(tmp_path, capsys, start):
    plain, _ = new(capsys, write_folders(tmp_path / "rec"), out=tmp_path / "plain")
    root = write_folders(tmp_path / "rec")
    rewrite(root, lambda text: start + with_commas(text))
    found, modality = new(capsys, root)
    assert found["notes"] == ["numbers have decimal commas"]
    assert modality.decoder.options.pop("decimal") == ","
    assert {**found["decoder"], "decimal": "."} == {**plain["decoder"], "decimal": "."}
    values = decode_all(tmp_path / "made", modality)["up/3.csv"].values[0]
    assert values == pytest.approx(np.float32(signal(3)[:, 1:]), abs=1e-5)


@pytest.mark.parametrize("change", [str, with_commas])
def test_tables_without_names_are_found_and_the_recipe_reads_them(tmp_path, capsys, change):
    root = write_folders(tmp_path / "rec")
    rewrite(root, lambda text: change(text.split("\n", 1)[1]))
    found, modality = new(capsys, root, "--rate", 50)
    assert found["notes"][0].startswith("the first row holds values; columns are called f0, f1,")
    assert found["warnings"] == [
        "columns left out, as it counts rows or tells times, and has no name to say which: f0"
    ]
    assert modality.decoder.options["header"] is False
    assert found["channels"] == ["f1", "f2"] == modality.decoder.options["channels"]
    values = decode_all(tmp_path / "made", modality)["up/3.csv"].values[0]
    assert values == pytest.approx(np.float32(signal(3)[:, 1:]), abs=1e-5)
    assert command("modality", "new", "motion", "--from", root, "--out", tmp_path / "no") == 2
    assert "got columns f0, f1, f2 and no names in the first row" in capsys.readouterr().err


def test_files_of_another_form_than_most_are_left_out_and_listed(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    point = (root / "up/3.csv").read_text(encoding="utf-8").replace(",", ";")
    rewrite(root, with_commas)
    (root / "up/3.csv").write_text(point, encoding="utf-8")
    nameless = (root / "up/4.csv").read_text(encoding="utf-8").split("\n", 1)[1]
    (root / "up/4.csv").write_text(nameless, encoding="utf-8")
    found, _ = new(capsys, root)
    assert found["recordings"] == 18
    told = sorted(found["left_out"])
    assert "up/3.csv must hold numbers in column 'x', got '-0.979798' (string)" in told[0]
    assert "up/4.csv must have the names of its columns in its first row" in told[1]


def test_a_long_table_may_have_decimal_commas(tmp_path, capsys):
    table = pq.read_table(write_long(tmp_path / "log.parquet"))
    rows = [";".join(table.column_names)]
    rows += [";".join(f"{cell:.6f}".replace(".", ",") if isinstance(cell, float) else cell
                      for cell in row.values()) for row in table.to_pylist()]  # fmt: skip
    (tmp_path / "log.csv").write_text("\n".join(rows), encoding="utf-8")
    found, modality = new(capsys, tmp_path / "log.csv", *BY_TRIP, "--group", "who")
    assert (found["channels"], found["rate"]) == (["x", "y"], 50)
    values = decode_all(tmp_path / "made", modality)["trip 3"].values[0]
    assert values == pytest.approx(np.float32(signal(3, label="down")[:, 1:]), abs=1e-5)


@pytest.mark.parametrize("length", [1, 50])
def test_recordings_of_which_no_channel_varies_are_doubted(tmp_path, capsys, length):
    for number, label in enumerate(("up", "down")):
        for i in range(3):
            levels = np.tile([number + i / 9, 1.5], (length, 1))
            write_table(tmp_path / f"rec/{label}/{i}.csv", levels, header="x,y")
    found, modality = new(capsys, tmp_path / "rec", "--rate", 10)
    assert found["warnings"] == [
        "no channel varies within a recording; nothing but levels can be told"
    ]
    assert len(decode_all(tmp_path / "made", modality)) == 6


def test_files_that_cannot_be_read_are_left_out_and_listed(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    (root / "up/3.csv").write_text("t,x,y\n0,1,ok?\n0.02,1,2\n", encoding="utf-8")
    (root / "up/notes.md").write_text("sunny", encoding="utf-8")
    found, _ = new(capsys, root)
    assert found["recordings"] == 19
    assert len(found["left_out"]) == 1
    assert "up/3.csv must hold numbers in column 'y', got 'ok?'" in found["left_out"][0]
    assert found["notes"] == ["left aside, as they are no media of a class: 1 .md"]
    ids = {sample.id for rows in rows_of(tmp_path / "made").values() for sample in rows}
    assert len(ids) == 19
    assert "up/3.csv" not in ids


def test_a_tenth_may_be_unreadable_however_they_are_broken(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    (root / "up/3.csv").write_bytes(b"")
    (root / "up/4.csv").write_bytes(b"t,x,y\n0,1,2\n0,1,2\n")
    found, _ = new(capsys, root)
    assert found["recordings"] == 18
    assert [line.split()[0] for line in found["left_out"]] == ["up/3.csv", "up/4.csv"]
    (root / "up/5.csv").write_bytes(b"t,x,y\n0,1,2\n0,1,2\n")
    assert command("modality", "new", "motion", "--from", root, "--out", tmp_path / "no") == 2
    assert "got 3 of 20; the first: up/3.csv must be a whole file" in capsys.readouterr().err


def test_equal_files_stay_in_one_split_and_other_labels_of_theirs_are_told(tmp_path, capsys):
    root = write_folders(tmp_path / "rec", count=6)
    for i in range(6):
        for n in range(3):
            shutil.copy(root / f"up/{i}.csv", root / f"up/copy-{n}-of-{i}.csv")
    shutil.copy(root / "up/0.csv", root / "down/swapped.csv")
    found, _ = new(capsys, root)
    hashes = {
        split: {sha256_bytes((root / sample.id).read_bytes()) for sample in rows}
        for split, rows in rows_of(tmp_path / "made").items()
    }
    assert sum(map(len, hashes.values())) == len(set.union(*hashes.values())) == 12
    assert found["warnings"][-1] == (
        "4 files are identical to one with another label, as up/0.csv (up) is to down/swapped.csv "
        "(down); correct the labels"
    )


def test_a_rare_class_is_learnt_and_not_tested(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    write_table(root / "turn/0.csv", signal(77))
    write_table(root / "turn/1.csv", signal(78))
    found, _ = new(capsys, root)
    assert "learnt and never tested" in found["warnings"][0]
    assert "turn; add some" in found["warnings"][0]
    rows = rows_of(tmp_path / "made")
    assert [sample.id for sample in rows["train"] if sample.answer == "turn"] == [
        "turn/0.csv",
        "turn/1.csv",
    ]


def test_a_class_that_a_split_lacks_as_groups_cannot_be_parted_is_told(tmp_path, capsys):
    drawn = ["c1", "b2", "a0", "a2", "b4", "b1", "a4"]  # a class and a group each
    rows = [f"{i}.csv,{label},g{group}" for i, (label, group) in enumerate(drawn)]
    for i, _ in enumerate(drawn):
        write_table(tmp_path / f"rec/{i}.csv", signal(i))
    text = "\n".join(["file,move,person", *rows])
    (tmp_path / "rec/labels.csv").write_text(text, encoding="utf-8")
    found, _ = new(capsys, tmp_path / "rec", "--label", "move", "--group", "person")
    assert found["warnings"] == [
        "learnt and never tested, as there are fewer than 3 samples or groups of them: c; add "
        "some, or leave the class out",
        "test has none of b, as groups cannot be parted; try another --seed, or add groups",
    ]
    assert {sample.answer for sample in rows_of(tmp_path / "made")["test"]} == {"a"}


def test_the_same_seed_gives_the_same_split_and_another_gives_another(tmp_path, capsys):
    root = write_folders(tmp_path / "rec")
    texts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        new(capsys, root, "--seed", seed, out=tmp_path / name)
        files = sorted((tmp_path / name).glob("*.jsonl"))
        texts.append([file.read_text(encoding="utf-8") for file in files])
    assert texts[0] == texts[1] != texts[2]


def folders(root):
    return write_folders(root / "rec")


def beside(root):
    return write_beside(root / "rec")


def empty(root):
    (root / "rec").mkdir()
    return root / "rec"


def one_class(root):
    return write_folders(root / "rec", classes=("up",))


def two_samples(root):
    return write_folders(root / "rec", count=2)


def mixed(root):
    (write_folders(root / "rec") / "up/a.wav").write_bytes(b"RIFF")
    return root / "rec"


def deeper(root):
    write_folders(root / "rec/train")
    return root / "rec"


def untimed(root):
    return write_folders(root / "rec", header="a,x,y")


def unnamed(root):
    return write_folders(root / "rec", header=",x,y")


def named_twice(root):
    return write_folders(root / "rec", header="t,x,x")


def both_decimal_signs(root):
    rewrite(write_folders(root / "rec"), lambda text: with_commas(text) + "2;1.5;2,5\n")
    return root / "rec"


def names_that_are_numbers(root):
    return write_folders(root / "rec", header="0,1,2")


def not_utf_8(root):
    write_folders(root / "rec")
    for file in (root / "rec").rglob("*.csv"):
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-16")
    return root / "rec"


def header_alone(root):
    rewrite(write_folders(root / "rec"), lambda text: text.split("\n")[0] + "\n")
    return root / "rec"


def one_row(root):
    rewrite(write_folders(root / "rec"), lambda text: "\n".join(text.split("\n")[:2]))
    return root / "rec"


def infinite(root):
    rewrite(write_folders(root / "rec"), lambda text: text + "2,inf,1\n")
    return root / "rec"


def broken(root):
    write_folders(root / "rec")
    for i in range(3):
        (root / f"rec/up/{i}.csv").write_bytes(b"\x00\xff")
    return root / "rec"


def edited_table(root, old, new):
    table = write_beside(root / "rec") / "labels.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return root / "rec"


def two_columns(root):
    return edited_table(root, ",none", ",files/1.csv")


def no_column(root):
    return edited_table(root, "files/", "media/")


def empty_label(root):
    return edited_table(root, "4.csv,Going_Up", "4.csv,")


def one_file_twice(root):
    return edited_table(root, "files/2.csv", "files/1.csv")


def long_table(root):
    return write_long(root / "log.parquet")


def label_that_changes(root):
    return write_long(root / "log.parquet", change={"move": "up"})


def row_of_no_recording(root):
    return write_long(root / "log.parquet", change={"trip": None})


def label_that_is_no_number(root):
    table = {"trip": [1, 1, 2, 2], "x": [1.0, 2, 3, 4], "move": [1.0, 1.0, 2.0, float("nan")]}
    pq.write_table(pa.table(table), root / "log.parquet")
    return root / "log.parquet"


def column_of_lists(root):
    table = {"trip": [1, 2], "move": ["up", "down"], "t": [0, 0], "x": [[1.0], [2.0]]}
    pq.write_table(pa.table(table), root / "log.parquet")
    return root / "log.parquet"


def sound_file(root):
    (root / "a.wav").write_bytes(b"RIFF")
    return root / "a.wav"


BY_TRIP = ["--label", "move", "--recording", "trip"]


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (lambda root: root / "none", [], "--from must name a file or a directory"),
        (empty, [], "must hold a folder a class, got files of nothing and no folder"),
        (empty, ["--label", "move"], "must hold a table with the column 'move', got none"),
        (one_class, [], "must be of two classes or more, got up alone"),
        (two_samples, [], "must have 3 samples or groups of different content"),
        (mixed, [], "must be of one kind"),
        (deeper, [], "must hold files alone, got the folder"),
        (untimed, [], "--rate HZ must be given for tables without a column of times"),
        (unnamed, [], "must have a name of its own for every column, got none for column 1"),
        (named_twice, [], "must have a name of its own for every column, got 'x' 2 times"),
        (both_decimal_signs, [], "set decimal: ','"),
        (names_that_are_numbers, [], "names of its columns in its first row, got '0,1,2'"),
        (not_utf_8, [], "must be text in UTF-8, got byte 0xff in its first row; convert it"),
        (header_alone, [], "must have a column of numbers, got t, x, y"),
        (one_row, [], "must have two rows or more, each with its time, got 1 rows"),
        (infinite, [], "must hold finite numbers of at most 3.4e+38, got infinity in row 101"),
        (broken, [], "at most 10% of the files may be unreadable, got 3 of 20; the first: up/0"),
        (folders, ["--group", "who"], "--group must name a column of a table, got 'who'"),
        (folders, ["--rate", "0"], "--rate must be positive, in Hz, got 0"),
        (folders, ["--question", " "], "--question must be words"),
        (beside, ["--label", "moves"], "got 'moves'; did you mean 'move'?"),
        (beside, ["--label", "move", "--group", "persn"], "got 'persn'; did you mean 'person'?"),
        (beside, ["--label", "move", "--recording", "file"], "--recording must go with one table"),
        (two_columns, ["--label", "move"], "got 'file' of labels.csv, 'remark' of labels.csv"),
        (no_column, ["--label", "move"], "one column with the names of files, got none"),
        (empty_label, ["--label", "move"], "must be filled in every row, got an empty cell in row"),
        (one_file_twice, ["--label", "move"], "must name a file once, got 'files/1.csv' again"),
        (long_table, ["--recording", "trip"], "--label COLUMN must be given for the table"),
        (long_table, ["--label", "move", "--recording", "tripp"], "did you mean 'trip'?"),
        (label_that_changes, BY_TRIP, "must be the same in all rows of a recording, got 'down'"),
        (row_of_no_recording, BY_TRIP, "column 'trip' of"),
        (label_that_is_no_number, BY_TRIP, "got an empty cell in row 4"),
        (column_of_lists, BY_TRIP, "must hold columns of numbers, texts and times"),
        (sound_file, BY_TRIP, "a table must end in .csv, .tsv, .parquet, got a.wav"),
    ],
)
def test_what_is_refused_is_told_in_one_line_and_nothing_is_written(
    tmp_path, capsys, make, words, said
):
    source, out = make(tmp_path), tmp_path / "made"
    before = sorted(tmp_path.rglob("*"))
    assert command("modality", "new", "motion", "--from", source, "--out", out, *words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert ";" in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_sounds_need_no_rate_and_arrays_do(tmp_path, capsys):
    for ending in (".wav", ".npy"):
        for label in ("up", "down"):
            (tmp_path / ending / label).mkdir(parents=True)
            (tmp_path / ending / label / f"a{ending}").write_bytes(b"")
    assert command("modality", "new", "hum", "--from", tmp_path / ".wav", "--rate", 8) == 2
    assert "--rate must go with tables or arrays, got sounds" in capsys.readouterr().err
    assert command("modality", "new", "hum", "--from", tmp_path / ".npy") == 2
    assert "--rate HZ must be given for arrays, got down/a.npy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Motion", "2nd", "my sense", "base", ""])
def test_a_name_that_cannot_be_one_is_refused(tmp_path, capsys, name):
    out = tmp_path / "made"
    root = write_folders(tmp_path / "rec", count=3)
    assert command("modality", "new", name, "--from", root, "--out", out) == 2
    assert f"got {name!r}; choose another" in capsys.readouterr().err
    assert not out.exists()


def test_a_directory_that_is_not_empty_is_kept(tmp_path, capsys):
    root = write_folders(tmp_path / "rec", count=3)
    (tmp_path / "made").mkdir()
    (tmp_path / "made/mine.txt").write_text("mine", encoding="utf-8")
    assert command("modality", "new", "motion", "--from", root, "--out", tmp_path / "made") == 2
    assert "--out must be new or empty" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["on", "null", "true"])
def test_a_name_that_is_a_word_of_yaml_is_a_name(tmp_path, capsys, name):
    new(capsys, write_folders(tmp_path / "rec", count=3), name=name)
    assert load_recipe(tmp_path / "made/recipe.yaml").curriculum == (name,)


@pytest.mark.usefixtures("home")
def test_from_files_to_an_answer(tmp_path, capsys):
    root, base, run = write_folders(tmp_path / "rec"), tmp_path / "base", tmp_path / "run"
    write_tiny_base(base)
    new(capsys, root)
    changes = {"base": base, "modalities.motion.training.steps": 2, "method.queries": 2}
    words = [f"--set={field}={value}" for field, value in changes.items()]
    recipe = tmp_path / "made/recipe.yaml"
    assert command("evolve", recipe, "--out", run, "--dry-run", *words) == 0
    assert command("evolve", recipe, "--out", run, "--json", *words) == 0
    capsys.readouterr()
    assert command("ask", run, "--motion", root / "up/0.csv", "What is it?", "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)
    assert command("verify", run) == 0


CELLS = st.sampled_from(["", "nan", "inf", "-1e39", "1,5", "1.5", "word", '"', "0", "2026-01-01",
                         "\u00e4", "1;2", " 3 ", "true", "1e5", "t"])  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 2), CELLS), max_size=4),
    st.sampled_from(",;\t"),
    st.booleans(),
)
def test_whatever_stands_in_tables_they_are_read_whole_or_refused_in_one_line(
    changes, separator, everywhere
):
    with TemporaryDirectory() as directory, redirect_stderr(io.StringIO()) as errors:
        root = Path(directory)
        for number in range(6):
            rows = [["t", "x", "y"], *([f"{c:.4f}" for c in r] for r in signal(number, 4).tolist())]
            for only, row, column, cell in changes:
                if everywhere or only == number:
                    rows[row][column] = cell
            file = root / "rec" / ("up", "down")[number % 2] / f"{number}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(map(separator.join, rows)), encoding="utf-8")
        words = ("--from", root / "rec", "--out", root / "made", "--json")
        with redirect_stdout(io.StringIO()) as shown:
            code = command("modality", "new", "motion", *words)
        if code == 0:
            modality = load_recipe(root / "made/recipe.yaml").modalities["motion"]
            decoded = decode_all(root / "made", modality)
            assert len(decoded) == json.loads(shown.getvalue())["recordings"]
            assert not any(np.isinf(media.values).any() for media in decoded.values())
        else:
            assert code == 2
            assert errors.getvalue().startswith("error: ")
            assert errors.getvalue().count("\n") == 1
            assert not (root / "made").exists()
