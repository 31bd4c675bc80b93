"""One answer of two: whose counts where, and how it fades."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.policies.answers import AnswerGate, Joining, entropy_of
from samples import error_of

SIZE, TILE = (64, 96), 32


def answers() -> tuple[Tensor, Tensor]:
    """Two answers at stride 4, and the middle of three columns of cells for the second."""
    return torch.randn(1, 5, 16, 24), torch.randn(1, 5, 16, 24)


def middle() -> Tensor:
    cells = torch.zeros(1, 2, 3, dtype=torch.bool)
    cells[:, :, 1] = True
    return cells


def test_every_place_has_the_answer_that_belongs_to_it() -> None:
    first, second = answers()
    joined = Joining()(first, second, middle(), TILE, SIZE)
    assert torch.equal(joined[..., 8:16], second.log_softmax(1)[..., 8:16])
    assert torch.equal(joined[..., :8], first.log_softmax(1)[..., :8])
    assert torch.equal(joined[..., 16:], first.log_softmax(1)[..., 16:])


def test_what_is_no_number_where_no_tile_was_does_not_matter() -> None:
    first, second = answers()
    hidden = second.clone()
    hidden[..., :8], hidden[..., 16:] = torch.nan, torch.inf
    for fusion, gate in (("replace", None), ("sharper", None), ("gated", AnswerGate(5))):
        with torch.no_grad():
            found = Joining(fusion)(first, hidden, middle(), TILE, SIZE, gate)
            assert torch.equal(found, Joining(fusion)(first, second, middle(), TILE, SIZE, gate))


def test_the_sharper_answer_wins() -> None:
    first, second = answers()
    joined = Joining("sharper")(first, second, torch.ones(1, 2, 3, dtype=torch.bool), TILE, SIZE)
    both = torch.stack([first.log_softmax(1), second.log_softmax(1)])
    best = torch.cat([entropy_of(x) for x in both], 1).argmin(1)
    for k in (0, 1):
        assert torch.equal(joined.movedim(1, -1)[best == k], both[k].movedim(1, -1)[best == k])


def test_answers_fade_into_one_another() -> None:
    first, second = (F.one_hot(torch.full((1, 16, 24), k), 2).movedim(-1, 1) * 9.0 for k in (0, 1))
    joined = Joining("replace", 32)(first, second, middle(), TILE, SIZE)
    chance = joined.exp()[0, 1, 8]
    assert torch.all(chance[8:16] > 0.99) and torch.all(chance[:9].diff() > 0.05)
    assert torch.all(chance[15:].diff() < -0.05) and chance[0] < 0.2
    torch.testing.assert_close(joined.exp().sum(1), torch.ones(1, 16, 24))


def test_a_coarser_answer_comes_to_the_grid_of_the_finer() -> None:
    first, second = torch.randn(1, 5, 8, 12), torch.randn(1, 5, 16, 24)
    for pair in ((first, second), (second, first)):
        assert Joining()(*pair, middle(), TILE, SIZE).shape == (1, 5, 16, 24)


def test_a_new_gate_takes_nearly_the_second_answer() -> None:
    first, second = (x.log_softmax(1) for x in answers())
    with torch.no_grad():
        gate = AnswerGate(5)
        gate.weigh.weight.zero_()
        found = gate(first, second)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1, 16, 24))
    assert float((found.argmax(1) == second.argmax(1)).double().mean()) > 0.95
    assert AnswerGate(**gate.config).state_dict().keys() == gate.state_dict().keys()


def test_what_cannot_be_joined_is_refused() -> None:
    text = error_of(
        lambda: Joining()(torch.rand(1, 4, 16, 24), torch.rand(1, 5, 16, 24), middle(), TILE, SIZE)
    )
    assert text == "the small network has 4 classes and the large network 5; give two for the same classes"
    assert "a gate of 0 classes" in error_of(lambda: AnswerGate(0))
