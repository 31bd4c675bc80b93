"""Decoders: some places are computed as all of them are, and as the papers say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conformance import assert_close
from foveal.cost import count_macs
from foveal.decoders import Decoder, Maps, PatchDecoder, PointDecoder, usual_places
from foveal.decoders.points import sampled, training_points
from foveal.exits import Stages
from foveal.models import create_model
from samples import Ladder, headless, ladder, shaken

SIDES = [(16, 24), (13, 22), (1, 1), (4, 17)]
CLASSES, CHANNELS = 5, (6, 10)


def maps(sides: tuple[int, int], ratio: int, images: int = 2) -> Maps:
    coarse = tuple(-(-side // ratio) for side in sides)
    return Maps(
        torch.randn(images, CHANNELS[0], *sides, dtype=torch.float64),
        torch.randn(images, CHANNELS[1], *coarse, dtype=torch.float64),
        torch.randn(images, CLASSES, *coarse, dtype=torch.float64),
        ratio,
        4,
    )


def patches(ratio: int, width: int = 7) -> PatchDecoder:
    made = shaken(PatchDecoder(*CHANNELS, CLASSES, ratio, width)).double().eval()
    nn.init.normal_(made.controller[-1].weight)
    return made


def points(width: int = 8) -> PointDecoder:
    return PointDecoder(CHANNELS[0], CLASSES, width).double().eval()


def last(head: PatchDecoder | PointDecoder, given: Maps, count: int, steps: int = 2) -> tuple[Tensor, int]:
    """Refine the last places of every step."""

    def by_number(answer: Tensor, side: int) -> Tensor:
        height, width = given.sides(side // given.stride)
        numbers = torch.arange(height * width, dtype=torch.float64)
        return numbers.view(1, height, width).expand(len(answer), -1, -1)

    with torch.no_grad():
        return list(head.stream(given, count, by_number, steps))[-1]


# NRD


@pytest.mark.parametrize(("classes", "count"), [(11, 763), (19, 899), (60, 1596), (150, 3126)])
def test_a_patch_has_as_many_parameters_as_the_paper_says(classes: int, count: int) -> None:
    made = PatchDecoder(*CHANNELS, classes, 8, 7)
    assert sum(made.sizes) == count == 576 + 17 * classes
    assert made.controller[-1].out_channels == count


def test_a_patch_is_answered_by_the_layers_that_its_weights_are() -> None:
    made, guides = patches(4), torch.randn(3, 16, 4, 4, dtype=torch.float64)
    weights = torch.randn(3, 576 + 17 * CLASSES, dtype=torch.float64)
    with torch.no_grad():
        found = made.decode(weights, guides)
        for patch in range(3):
            for row in range(4):
                for column in range(4):
                    position = torch.tensor([row / 4, column / 4], dtype=torch.float64)
                    x = made.norm(torch.cat([guides[patch, :, row, column], position])[None])[0]
                    rest = weights[patch]
                    for number, (i, o) in enumerate(((18, 16), (16, 16), (16, CLASSES))):
                        w, b, rest = rest[: i * o].view(o, i), rest[i * o : i * o + o], rest[i * o + o :]
                        x = w @ (x if number == 0 else x.clamp(min=0)) + b
                    assert not len(rest)
                    torch.testing.assert_close(found[patch, :, row, column], x)


@pytest.mark.parametrize("ratio", [2, 3, 8])
@pytest.mark.parametrize("sides", SIDES)
def test_all_patches_listed_are_the_decoder_everywhere(sides: tuple[int, int], ratio: int) -> None:
    made, given = patches(ratio), maps(sides, ratio)
    total = made.count(sides)
    found, spent = last(made, given, total + 3)
    assert spent == total == given.coarse[0, 0].numel()
    with torch.no_grad():
        whole = made.everywhere(given)
        assert torch.equal(found, whole)
        listed = made.at(given, torch.arange(total).flip(0).expand(2, -1))
    for number, values in enumerate(listed.unflatten(0, (2, total)).flip(1).unbind(1)):
        row, column = divmod(number, given.coarse.shape[3])
        there = whole[:, :, row * ratio : (row + 1) * ratio, column * ratio : (column + 1) * ratio]
        assert_close(values[:, :, : there.shape[2], : there.shape[3]], there, 1e-12)


def test_controller_and_guidance_see_zeros_beyond_the_map() -> None:
    """Both are ordinary convolutions of the whole map, one patch of whose weights and guidance is decoded."""
    made, given = patches(4), maps((16, 24), 4)

    def whole(layers: nn.Sequential, x: Tensor) -> Tensor:
        return layers[1:](F.conv2d(x, layers[0].weight, padding=1))  # type: ignore[arg-type]

    with torch.no_grad():
        weights, guides = whole(made.controller, given.coarse), whole(made.guidance, given.fine)
        found = made.everywhere(given)
        for row, column in ((0, 0), (1, 3), (3, 5)):
            there = (..., slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
            assert_close(found[there], made.decode(weights[:, :, row, column], guides[there]), 1e-12)


@pytest.mark.parametrize("sides", SIDES[:2])
def test_patches_that_are_not_listed_keep_the_coarse_answer(sides: tuple[int, int]) -> None:
    made, given = patches(4), maps(sides, 4)
    found, spent = last(made, given, 5)
    with torch.no_grad():
        fine = made.everywhere(given)
    coarse = given.enlarged(1)
    number = torch.arange(given.coarse[0, 0].numel()).view(given.coarse.shape[2:])
    number = number.repeat_interleave(4, 0).repeat_interleave(4, 1)[: sides[0], : sides[1]]
    listed = (number >= number.max() - 4).expand_as(found)
    assert spent == 5
    assert_close(found[listed], fine[listed], 1e-12)
    assert torch.equal(found[~listed], coarse[~listed])
    assert torch.equal(last(made, given, 0)[0], coarse)


def test_patches_cost_what_they_are() -> None:
    made, given = patches(4), maps((16, 24), 4, images=1)
    with torch.no_grad():
        one, three = (count_macs(lambda n=n: last(made, given, n)) for n in (1, 3))
    controller = 9 * CHANNELS[1] * 7 + 7 * (576 + 17 * CLASSES)
    guidance, network = 9 * CHANNELS[0] * 48 + 48 * 16, 18 * 16 + 16 * 16 + 16 * CLASSES
    assert one.convolution == controller + 16 * guidance
    assert one.product == 16 * network
    assert (three.convolution, three.product) == (3 * one.convolution, 3 * one.product)


# Points


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("ratio", [2, 4, 8])
@pytest.mark.parametrize("sides", SIDES)
def test_all_points_listed_are_the_decoder_everywhere(sides: tuple[int, int], ratio: int, steps: int) -> None:
    made, given = points(), maps(sides, ratio)
    total = made.count(sides)
    found, spent = last(made, given, steps * total, steps)
    with torch.no_grad():
        whole = made.everywhere(given)
        assert torch.equal(found, whole) and spent == total
        listed = made.at(given, 1, torch.arange(total).flip(0).expand(2, -1)).flip(1)
    assert_close(listed.transpose(1, 2).unflatten(2, sides), whole, 1e-12)


def test_points_are_doubled_and_predicted_step_by_step() -> None:
    """Written out for two steps: the coarse logits of a point are those before any step."""
    made, given = points(), maps((13, 22), 4)
    found, spent = last(made, given, 20)
    with torch.no_grad():
        half = F.interpolate(given.logits, scale_factor=2, mode="bilinear")[:, :, :7, :11]
        features = F.interpolate(
            F.pad(given.fine, (0, 0, 0, 1), "replicate"), scale_factor=0.5, mode="bilinear"
        )
        anew = made(features.movedim(1, 3), half.movedim(1, 3)).movedim(3, 1)
        expected = torch.where((torch.arange(77).view(7, 11) >= 67), anew, half)
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear")[:, :, :13, :22]
        listed = torch.arange(13 * 22).view(13, 22) >= 13 * 22 - 10
        expected = torch.where(listed, made.everywhere(given), expected)
    assert spent == 20
    assert_close(found, expected, 1e-12)


def test_a_step_that_could_predict_all_leaves_them_to_the_later_ones() -> None:
    made, given = points(), maps((16, 24), 4)
    found, spent = last(made, given, 2 * 96 + 20)  # the first step has 96 points
    assert spent == 2 * 96 + 20
    with torch.no_grad():
        fine = made.everywhere(given)
    listed = torch.arange(384).view(16, 24) >= 384 - spent
    assert_close(found[..., listed], fine[..., listed], 1e-12)
    assert last(made, given, 1, steps=1)[1] == 1 and last(made, given, 1)[1] == 1


def test_points_cost_what_they_are() -> None:
    made, given = points(), maps((16, 24), 4, images=1)
    one = (CHANNELS[0] + CLASSES) * 8 + 2 * (8 + CLASSES) * 8 + (8 + CLASSES) * CLASSES
    for count in (2, 20, 1000):
        macs = count_macs(lambda n=count: last(made, given, n))
        assert (macs.convolution, macs.product) == (0, one * min(count, 16 * 24))


def test_points_to_learn_from_are_the_uncertain_ones_and_some_at_random() -> None:
    logits = torch.zeros(2, 3, 4, 8)
    logits[:, 0, :, :4] = 9.0  # sure in the left half
    torch.manual_seed(0)
    found = training_points(logits, (4.0, 8.0), 400, 3.0, 0.75)
    assert found.shape == (2, 400, 2) and 0 <= float(found.min()) and float(found.max()) < 1
    unsure, others = found[:, :300], found[:, 300:]
    assert float(unsure[..., 1].min()) > 0.4
    assert 0.35 < float((others[..., 1] < 0.5).float().mean()) < 0.65


def test_maps_are_read_at_the_same_place_whatever_reaches_over_the_edge() -> None:
    line = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 4, 8)
    where = torch.tensor([[[0.5, 0.25]]])
    assert float(sampled(line, where, (4.0, 6.0))) == pytest.approx(6 * 0.25 - 0.5)
    assert float(sampled(line, where, (4.0, 8.0))) == pytest.approx(8 * 0.25 - 0.5)


# Beside a network


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("swiftnet_rn18", ("encoder.layer1", "head.context")),
        ("swiftnet_rn18_s16", ("encoder.layer1", "head.context")),
        ("swiftnet_nano", ("encoder.stem", "head.context")),
    ],
)
def test_the_usual_places_are_the_last_of_stride_4_and_the_deepest(
    name: str, places: tuple[str, str]
) -> None:
    assert usual_places(create_model(name, 3).eval()) == places


def test_networks_without_two_strides_are_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    with pytest.raises(ValueError, match="Sequential has no two maps of different strides"):
        usual_places(flat)
    stages = Stages(headless(CLASSES), ("0", "2"))
    with pytest.raises(ValueError, match="0 has stride 2 and 2 2; give a coarse map whose stride"):
        Decoder.of(stages)


def stages_of(network: Ladder) -> Stages:
    return Stages(network, usual_places(network))


def test_a_decoder_of_another_network_is_refused() -> None:
    made = Decoder.of(stages_of(ladder(CLASSES)))
    assert made.places == ("early", "bridge")
    made.check_fit(stages_of(ladder(CLASSES)))
    with pytest.raises(ValueError, match=r"4 times apart, and 5 classes; the network has .* and 6 classes"):
        made.check_fit(stages_of(ladder(6)))


@pytest.mark.parametrize("kind", ["nrd", "points"])
def test_the_same_seed_makes_the_same_decoder(kind: str) -> None:
    made = Decoder.of(stages_of(ladder(CLASSES)), kind, seed=4)  # type: ignore[arg-type]
    again = Decoder.of(stages_of(ladder(CLASSES)), kind, seed=4)  # type: ignore[arg-type]
    assert made.config == again.config
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="13x22 and the coarse one 3x6, which is not a 4th of it"):
        Maps(torch.zeros(1, 1, 13, 22), torch.zeros(1, 1, 3, 6), torch.zeros(1, 2, 3, 6), 4, 4)
