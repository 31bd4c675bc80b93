"""Rules by which sides of whole maps follow from the given side: found from pairs, and the same in C."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreign import lively, picture
from foveal.program import compile_network
from foveal.program.builder import NotCompiled
from foveal.program.sides import OWN, Sides, fitted

SAMPLES = (23, 37, 5, 201, 157, 4, 97, 11, 2, 131, 64, 6)
RULES: dict[str, tuple[Callable[[int], int], Sides | None]] = {
    "the same": (lambda s: s, OWN),
    "half, rounded up": (lambda s: -(-s // 2), Sides(1, 2, 1, 1)),
    "half, rounded down": (lambda s: s // 2, Sides(1, 2, 0, 1)),
    "three halves": (lambda s: -(-3 * s // 2), Sides(3, 2, 1, 1)),
    "a tenth, but five": (lambda s: max(5, -(-s // 10)), Sides(1, 10, 9, 5)),
    "seven": (lambda s: 7, Sides(0, 1, 0, 7)),
    "one more": (lambda s: s + 1, None),
    "the square": (lambda s: s * s, None),
    "five times": (lambda s: 5 * s, None),
    "a hundred": (lambda s: 100, None),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_found_or_there_is_none(name: str) -> None:
    rule, expected = RULES[name]
    found = fitted((side, rule(side)) for side in SAMPLES)
    assert found == expected
    assert found is None or all(found.of(side) == rule(side) for side in range(2, 400))


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("given", [OWN, Sides(3, 2, 1, 1), Sides(1, 10, 9, 5), Sides(0, 1, 0, 7)])
def test_windows_keep_a_share_of_a_share(given: Sides, stride: int) -> None:
    found = given.windowed(stride)
    assert found is not None
    assert all(found.of(side) == -(-given.of(side) // stride) for side in range(1, 300))


def test_windows_too_far_apart_have_no_rule() -> None:
    assert Sides(1, 10, 9, 5).windowed(7) is None


class Whole(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


class Around(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.whole, self.head = nn.Conv2d(3, 4, 3, 2, 1), Whole(change), nn.Conv2d(4, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.whole(self.body(image)))


def to_sides(share: Callable[[int], int]) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        small = F.interpolate(x, [share(side) for side in x.shape[2:]], mode="nearest")
        return x + F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False)

    return change


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "the map itself": (lambda x: x, "something else than a new map"),
    "a map of other sides": (lambda x: F.max_pool2d(x, 3, 2, 1), "something else than a new map"),
    "sides that follow no rule": (to_sides(lambda s: s + 1), "sides are no share"),
    "a decision by the size": (lambda x: x * 2 if x.shape[2] > 50 else x + 1, "depends on the size"),
    "a number of the size": (lambda x: x / x.shape[2], "depends on the size"),
    "a matrix product": (lambda x: x @ x.transpose(2, 3) @ x, "has no step"),
    "bicubic resizing": (lambda x: x + F.interpolate(x[:, :, :2], x.shape[2:], mode="bicubic"), "indexes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_step_can_say_is_refused(case: str) -> None:
    change, says = REFUSED[case]
    with pytest.raises(NotCompiled, match=says):
        compile_network(lively(Around(change)), ("whole",))


@torch.no_grad()
@pytest.mark.parametrize("share", [lambda s: -(-s // 3), lambda s: max(4, s // 5), lambda s: 2 * s])
@pytest.mark.parametrize("size", [(75, 101), (1, 9), (33, 260)])
def test_maps_of_other_sides_at_any_size(share: Callable[[int], int], size: tuple[int, int]) -> None:
    network = lively(Around(to_sides(lambda s: max(1, share(s)))))
    program, x = compile_network(network, ("whole",)), picture(size=size, count=2)
    found = torch.from_numpy(program.run(x.numpy(), logits=True).logits).permute(0, 3, 1, 2)
    assert (found - network(x)).abs().max() < 1e-4 * found.abs().max()
