"""A step and an answer of a vision LLM are said to cost what they cost with real numbers."""

from types import SimpleNamespace

import pytest
import torch

from pathweave.bases.llm import read_config
from pathweave.bases.vision_llm import base_of, vision_llm_of
from pathweave.estimate.encoders import UNKNOWN_TOKENS
from pathweave.estimate.estimate import estimate_recipe
from pathweave.methods import method_of
from pathweave.methods.path import add_path
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.reading import parse_recipe
from tests.estimate.measure import measured_flops, saved_bytes
from tests.tiny import WIDTH, byte_tokenizer, medium, randomise
from tests.vision_llms import FAMILIES, random_model, tokenizer_of

TEXT, ANSWER, BATCH = 9, 6, 3
