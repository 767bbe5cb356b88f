"""Ids of media: what stands behind them, and which path each token takes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pathweave.errors import RunError
from pathweave.model.soft_vocabulary import Ride, first_soft_id, hook_embeddings
from pathweave.nn import Mixture
from pathweave.nn.hooked import carrying
from tests.tiny import byte_tokenizer, tiny_llm

FIRST, DIM = 100, 4
SCOPES = ("onward", "medium", "prompt")
ZERO = torch.zeros(1, 1)
MIXTURES = [Mixture(ZERO, ZERO[0], ZERO, ZERO, None) for _ in range(3)]


@st.composite
def batches(draw):
    """Rows of words and media (lists of tokens, each with a path), and scopes of the paths.

    The last path has no experts in the language model.
    """
    scopes = [*draw(st.lists(st.sampled_from(SCOPES), min_size=1, max_size=3)), "onward"]
    if "prompt" in scopes:  # of several media in one prompt, what the whole prompt takes is one
        scopes = ["prompt" if scope == "onward" else scope for scope in scopes]
    piece = st.tuples(st.integers(-1, len(scopes) - 1), st.integers(1, 3))
    rows = draw(st.lists(st.lists(piece, min_size=1, max_size=5), min_size=1, max_size=4))
    return rows, scopes


def written(rows):
    """Ids, padded on the left, and the path of each id of a medium."""
    path_of, ids = [], []
    for row in rows:
        line = []
        for path, count in row:
            for _ in range(count):
                line.append(7 if path < 0 else FIRST + len(path_of))
                path_of += [] if path < 0 else [path]
        ids.append(line)
    width = max(map(len, ids))
    return torch.tensor([[0] * (width - len(line)) + line for line in ids]), path_of


def expected(ids, path_of, scopes):
    """The slow form: every token by itself."""
    inside = range(len(scopes) - 1)
    taken = []
    for row in ids.tolist():
        going, line = -1, []
        for token in row:
            path = path_of[token - FIRST] if token >= FIRST else -1
            if path in inside and scopes[path] != "medium":
                going = path
            line.append(path if path in inside else going)
        if going >= 0 and scopes[going] == "prompt":
            line = [going if path < 0 else path for path in line]
        taken.append(line)
    return taken


def ride(path_of, scopes):
    mixtures = [{"llm/x": each} for each in MIXTURES[: len(scopes) - 1]] + [{}]
    return Ride(FIRST, torch.randn(len(path_of), DIM), path_of, mixtures, scopes)


def taken(found, ids):
    """The path of each token of the running pass."""
    paths = torch.full(ids.shape, -1).flatten()
    for mixtures, takers in found.route.runs:
        assert not isinstance(takers, int) or takers == len(ids)  # all tokens, or some
        chosen = torch.arange(ids.numel()) if isinstance(takers, int) else takers
        assert 0 < len(chosen) < ids.numel() or isinstance(takers, int)
        assert (paths[chosen] == -1).all()
        paths[chosen] = [each is mixtures["llm/x"] for each in MIXTURES].index(True)
    return paths.view(ids.shape).tolist()


@settings(max_examples=150)
@given(batches())
def test_each_token_takes_the_path_that_its_scope_says(batch):
    rows, scopes = batch
    ids, path_of = written(rows)
    found = ride(path_of, scopes)
    for _ in range(2):  # a sequence that is read again begins anew
        words = found.board(ids)
        assert (words < FIRST).all()
        assert taken(found, ids) == expected(ids, path_of, scopes)


@settings(max_examples=100)
@given(batches(), st.integers(1, 4), st.integers(1, 3))
def test_passes_follow_each_other(batch, size, beams):
    """A prompt in pieces, then words that follow it, with rows repeated for beams."""
    rows, scopes = batch
    ids, path_of = written(rows)
    if "prompt" in scopes:  # what stands in a later piece is not known
        size = ids.shape[1]
    found, whole = ride(path_of, scopes), expected(ids, path_of, scopes)
    for start in range(0, ids.shape[1], size):
        piece = ids[:, start : start + size]
        found.board(piece)
        assert taken(found, piece) == [row[start : start + size] for row in whole]
    said = torch.full((len(ids) * beams, 1), 9)
    after = expected(torch.cat([ids, torch.full((len(ids), 1), 9)], 1), path_of, scopes)
    for _ in range(2):
        found.board(said)
        assert taken(found, said) == [[row[-1]] for row in after for _ in range(beams)]


def test_what_is_known_on_the_host_is_not_asked_of_the_device():
    ids, path_of = written([[(-1, 2), (0, 2), (-1, 1)]])
    found = ride(path_of, ["onward", "onward"])
    found.known = ids
    found.board(ids.to("meta"))
    [(_, chosen)] = found.route.runs
    assert chosen.device.type == "meta"
    assert len(chosen) == 3


@pytest.fixture
def llm():
    torch.manual_seed(0)
    model = tiny_llm(byte_tokenizer())
    hook_embeddings(model)
    hook_embeddings(model)
    return model


@torch.no_grad()
def test_ids_of_media_are_their_vectors(llm):
    first = first_soft_id(llm, 10)
    assert first == llm.get_input_embeddings().num_embeddings
    vectors = torch.randn(2, 32)
    ids = torch.tensor([[5, first, first + 1, 6]])
    embed = llm.get_input_embeddings()
    with carrying(Ride(first, vectors, [0, 0], [{}], ["onward"])):
        found = embed(ids)[0]
        assert embed(torch.tensor(5)).shape == (32,)
    assert torch.equal(found, torch.cat([embed.weight[5:6], vectors, embed.weight[6:7]]))
    assert len(embed._forward_hooks) == 1


@torch.no_grad()
def test_other_tables_of_words_take_media_for_a_padding(llm):
    table = nn.Embedding(300, 3)
    llm.model.extra = table
    hook_embeddings(llm)
    first = first_soft_id(llm, 10)
    ids = torch.tensor([[5, first, 6]])
    with carrying(Ride(first, torch.randn(1, 32), [0], [{}], ["onward"])):
        llm.get_input_embeddings()(ids)
        assert torch.equal(table(ids), table.weight[torch.tensor([[5, 0, 6]])])
        places = torch.tensor([[290, 291]])  # another table: of places, say
        assert torch.equal(table(places), table.weight[places])


@torch.no_grad()
def test_ids_that_nothing_stands_behind_are_refused(llm):
    first = first_soft_id(llm, 400)
    assert first == 400
    embed = llm.get_input_embeddings()
    with pytest.raises(RunError, match=r"below 257, got 300; ask the model through PathWeave"):
        embed(torch.tensor([[300]]))
    with (
        carrying(Ride(first, torch.randn(2, 32), [0, 0], [{}], ["onward"])),
        pytest.raises(RunError, match=r"below 402, got 402"),
    ):
        embed(torch.tensor([[402]]))
