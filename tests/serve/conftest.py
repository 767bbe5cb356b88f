"""One server for all tests of this folder that do not need one of their own."""

import openai
import pytest

from pathweave.encoders.media import Array
from pathweave.serve.in_process import InProcess
from pathweave.serve.sandbox import Sandbox
from pathweave.serve.service import Limits, Service
from tests.serve import own_decoders
from tests.serve.served import DECODERS, make_assistant, served

LIMITS = Limits(max_body=1 << 20, max_parts=20, max_messages=20, max_tokens=1500, seconds=60.0)
OWN = {
    "hog": (own_decoders.Hog(), Array),
    "crash": (own_decoders.Crash(), Array),
}


@pytest.fixture(scope="package")
def sandbox():
    return Sandbox(2, seconds=20.0, memory=300 << 20)


@pytest.fixture(scope="package")
def assistant(tmp_path_factory, sandbox):
    return make_assistant(tmp_path_factory.mktemp("features"), sandbox.guard, {**OWN, **DECODERS})


@pytest.fixture(scope="package")
def service(assistant):
    return Service(assistant, InProcess(assistant.model), "tiny", LIMITS)


@pytest.fixture(scope="package")
def address(service, sandbox):
    with served(service, sandbox) as address:
        yield address


@pytest.fixture(scope="package")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client
