"""The real vLLM on the small base; ``make vllm`` builds its environment and runs this.

``PATHWEAVE_VLLM`` is the Python of that environment. ``PATHWEAVE_VLLM_RUN`` is a finished run of
five modalities on the small base; without it a quick one is made.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from benchmarks.serving import answer_all, is_tie, questions
from pathweave.data.examples import Examples
from pathweave.data.manifest import Manifest, write_manifest
from pathweave.errors import PathWeaveError
from pathweave.model.generate import generate
from pathweave.runs.assistant import load
from pathweave.serve.engine import Asked, EngineError, whole
from pathweave.serve.in_process import InProcess
from pathweave.serve.token_shards import write_token_shards
from pathweave.serve.vllm_engine import find_engine, remote_engine
from tests.whole_runs import command

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("PATHWEAVE_VLLM", "")
COUNT, SETS = 200, 10
LONG = "List the planets of the sun:"
TIES = 4  # answers that may differ
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    if given := os.environ.get("PATHWEAVE_VLLM_RUN"):
        return Path(given)
    out = tmp_path_factory.mktemp("run") / "quick"
    assert command("evolve", ROOT / "recipes/mcl_mini.yaml", "--out", out, "--quick") == 0
    return out


@pytest.fixture(scope="module")
def assistant(finished):
    return load(finished, layers=False)


@pytest.fixture(scope="module")
def serve(assistant, finished, tmp_path_factory):
    """A vLLM as the message for an engine that is away says it is started."""
    with pytest.raises(EngineError) as away:
        remote_engine(assistant.model, finished, "http://127.0.0.1:9")
    words = re.search(r"vllm serve (.*)", str(away.value))[1].split()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # The build for CPUs has no name by which its command `vllm` finds itself; this is the same.
    program = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", *words]
    options = ["--port", str(port), "--max-model-len", "512", "--enforce-eager"]
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*program, *options], stdout=file, stderr=file, env={**os.environ, **SETTINGS},
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        end(process)


def wait_for(url, process, log, seconds=900):
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-3000:]
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    pytest.fail(log.read_text("utf-8", "replace")[-3000:])


def end(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(engine, work):
    async def main():
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


def test_greedy_answers_are_those_of_this_process(serve, finished, assistant):
    """200 prompts of five modalities, asked at once; but for ties."""
    here = load(finished)
    asked = [replace(a, max_tokens=16) for a in questions(here, finished, COUNT // SETS)]
    assert {part.path for a in asked for part in a.prompt if not isinstance(part, str)} == {
        *here.model.paths.names
    }
    expected = asyncio.run(answer_all(InProcess(here.model, max_waiting=COUNT), asked))
    engine = remote_engine(assistant.model, finished, serve[1], max_waiting=COUNT)
    answers = asyncio.run(answer_all(engine, asked))
    differing = [i for i in range(len(asked)) if answers[i] != expected[i]]
    assert len(set(expected)) > 10
    assert len(differing) <= TIES
    assert all(is_tie(here.model, asked[i], [answers[i], expected[i]]) for i in differing)


def test_a_long_answer_comes_in_many_pieces(serve, finished, assistant):
    async def work(engine):
        return [piece async for piece in engine.stream(Asked([LONG], 24))]

    pieces = run(remote_engine(assistant.model, finished, serve[1]), work)
    assert len(pieces) > 8
    assert [piece.tokens for piece in pieces] == sorted({piece.tokens for piece in pieces})


def test_a_seed_gives_the_same_draw(serve, finished, assistant):
    asked = [Asked([LONG], 12, 1.0, seed=seed) for seed in (1, 1, 2)]

    async def work(engine):
        return [(await whole(engine.stream(one))).text for one in asked]

    first, again, other = run(remote_engine(assistant.model, finished, serve[1]), work)
    assert first == again != other


def test_an_engine_says_what_it_cannot_take(serve, finished, assistant):
    engine = remote_engine(assistant.model, finished, serve[1])
    with pytest.raises(PathWeaveError, match="larger --max-model-len"):
        run(engine, lambda engine: whole(engine.stream(Asked(["What? " * 300], 2))))


def test_shards_are_answered_offline_as_the_page_says(finished, assistant, tmp_path):
    """The program of docs/engines.md, in vLLM's own environment."""
    manifest = ROOT / "data/mcl-mini/audio/qa-test.parquet"
    page = (ROOT / "docs/engines.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    quick = "enable_prompt_embeds=True, enforce_eager=True, max_model_len=512"
    program = program.replace("enable_prompt_embeds=True", quick)
    samples = list(Manifest(manifest))[:8]
    small = tmp_path / "small.jsonl"
    write_manifest(small, samples)
    for file in manifest.parent.iterdir():
        (tmp_path / file.name).symlink_to(file)
    write_token_shards(finished, small, tmp_path / "tokens", quiet=True)
    done = subprocess.run(
        [PYTHON, "-c", program], cwd=tmp_path, env={**os.environ, **SETTINGS},
        capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    examples = Examples(small, load(finished).readers)
    expected = generate(load(finished).model, [examples.prompt(i) for i in range(8)], 16)
    lines = [line for line in done.stdout.splitlines() if line.startswith("audio-qa")]
    assert lines == [
        f"{sample.id}\t{answer}" for sample, answer in zip(samples, expected, strict=True)
    ]


def test_an_engine_that_is_killed_in_mid_answer_is_told(serve, finished, assistant):
    """The last of all: nothing answers afterwards."""
    process, url = serve

    async def work(engine):
        pieces = engine.stream(Asked([LONG], 200))
        await anext(pieces)
        os.killpg(process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"must (be there until|end its answers)"):
            async for _ in pieces:
                pass
        with pytest.raises(EngineError, match="start it with: vllm serve"):
            await whole(engine.stream(Asked(["hi"], 1)))

    run(remote_engine(assistant.model, finished, url), work)
    with pytest.raises(EngineError, match="must answer, got ConnectError"):
        find_engine(url, "vllm serve")
