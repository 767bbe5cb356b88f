import base64

import openai
import pytest

from pathweave.runs.assistant import load
from pathweave.serve.in_process import InProcess
from pathweave.serve.sandbox import Sandbox
from pathweave.serve.service import Limits, Service
from tests.serve.served import served

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox(1, seconds=20.0)


@pytest.fixture(scope="module")
def assistant(finished_run, shared_home, sandbox):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        return load(finished_run, guard=sandbox.guard)


@pytest.fixture(scope="module")
def address(assistant, sandbox):
    limits = Limits(max_body=1 << 20, max_tokens=40, seconds=30.0)
    service = Service(assistant, InProcess(assistant.model), "tiny", limits)
    with served(service, sandbox) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def uri(recipe_file, name, mime="application/octet-stream"):
    data = (recipe_file.parent / f"{name}-test-0.npy").read_bytes()
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def test_a_medium_is_answered_as_the_assistant_answers(client, assistant, recipe_file):
    content = [
        {"type": "tilt_url", "tilt_url": {"url": uri(recipe_file, "tilt")}},
        {"type": "text", "text": "How is it?"},
    ]
    made = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], max_tokens=5
    )
    file = {"type": "tilt", "path": str(recipe_file.parent / "tilt-test-0.npy")}
    assert made.choices[0].message.content == assistant.ask([[file, content[1]]], 5)[0]
    print(made, client.models.list())
