import pytest

from pathweave.model.prompt import instruction
from tests.tiny import medium


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([], ""),
        ([medium("sound")], ""),
        (["What is it?", medium("sound")], "What is it?"),
        ([" One ", medium("sound"), "two.\n", medium("sight"), "Three"], "One two. Three"),
    ],
)
def test_the_instruction_is_all_text_of_a_prompt(prompt, text):
    assert instruction(prompt) == text
