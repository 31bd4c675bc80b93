from __future__ import annotations

import dataclasses

import pytest
import torch

from foveal.data.synthetic import CLASSES, PALETTE, Scene, StreetScenes, render, street


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (500, 7), (61, 83), (2, 3)])
def test_any_size(size):
    image, labels = street(3, size)
    assert image.shape == (3, *size)
    assert labels.shape == size
    assert image.dtype == torch.float32
    assert labels.dtype == torch.uint8
    assert 0 <= image.min() and image.max() <= 1
    assert labels.max() <= 10


def test_same_seed_is_bit_identical_and_leaves_global_randomness_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second = street(5, (90, 120), 2.5), street(5, (90, 120), 2.5)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_seeds_differ():
    assert Scene.random(1) == Scene.random(1)
    assert Scene.random(1) != Scene.random(2)
    assert (street(1, (90, 120))[1] != street(2, (90, 120))[1]).float().mean() > 0.1


def test_negative_and_huge_seeds_work():
    for seed in (-4, 2**70):
        assert street(seed, (20, 30))[1].shape == (20, 30)


def test_scene_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scene.random(0).speed = 1.0


def test_all_classes_occur_over_a_few_seeds():
    found = [set(street(seed, (240, 320))[1].unique().tolist()) for seed in range(4)]
    assert set().union(*found) == set(range(len(CLASSES)))
    assert min(len(classes) for classes in found) >= 8


@pytest.mark.parametrize("seed", [4])
def test_two_sizes_show_the_same_scene(seed):
    _, small = street(seed, (180, 240))
    _, large = street(seed, (360, 480))
    assert (small == large[::2, ::2]).float().mean() > 0.9
    assert (small == large[1::2, 1::2]).float().mean() > 0.9


def test_picture_and_labels_share_their_edges():
    image, labels = street(6, (240, 320))
    steps = (image[:, :, 1:] - image[:, :, :-1]).abs().sum(0)
    border = labels[:, 1:] != labels[:, :-1]
    strength = {shift: steps.roll(shift, 1)[border].mean() for shift in range(-3, 4)}
    assert max(strength, key=strength.get) == 0
    assert strength[0] > 2 * steps[~border].mean()


def test_moving_camera_changes_the_view():
    scene = dataclasses.replace(Scene.random(2), speed=0.5)
    first, second = render(scene, (120, 160), 0), render(scene, (120, 160), 10)
    assert (first[1] != second[1]).float().mean() > 0.02


def test_moving_camera_brings_things_nearer():
    scene = dataclasses.replace(Scene.random(2), speed=0.5)
    assert scene.ahead(50.0, 0) == 50.0
    assert scene.ahead(50.0, 20) == pytest.approx(40.0)
    assert scene.ahead(5.0, 100) > 100


def test_still_camera_keeps_standing_things():
    scene = dataclasses.replace(Scene.random(2), speed=0.0)
    parked = tuple(car for car in scene.cars if car.pace == 0)
    scene = dataclasses.replace(scene, cars=parked, pedestrians=(), bicyclists=())
    assert torch.equal(render(scene, (120, 160), 0)[1], render(scene, (120, 160), 25)[1])


def test_still_camera_lets_people_walk():
    scene = dataclasses.replace(Scene.random(2), speed=0.0)
    first, second = render(scene, (120, 160), 0)[1], render(scene, (120, 160), 25)[1]
    assert 0 < (first != second).float().mean() < 0.2


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (2.5, 4), (True, 4), (4,), 7, "ab"])
def test_bad_size_is_explained(size):
    with pytest.raises(ValueError, match=r"size must be two positive integers .* got"):
        street(0, size)


def test_data_set():
    scenes = StreetScenes(3, (24, 32), seed=1)
    assert (scenes.name, scenes.classes, scenes.palette) == ("street", CLASSES, PALETTE)
    assert len(scenes) == 3
    assert len(scenes.palette) == len(scenes.classes) == 11
    assert torch.equal(scenes[0][1], scenes[0][1])
    assert torch.equal(scenes[2][0], scenes[-1][0])
    assert not torch.equal(scenes[0][0], scenes[1][0])
    assert not torch.equal(scenes[0][0], StreetScenes(3, (24, 32), seed=2)[0][0])


def test_data_set_bounds():
    with pytest.raises(IndexError, match="index must be in"):
        StreetScenes(3)[3]
    with pytest.raises(IndexError, match="no scenes"):
        StreetScenes(0)[0]
    with pytest.raises(ValueError, match="count"):
        StreetScenes(-1)
    with pytest.raises(ValueError, match="size"):
        StreetScenes(1, (0, 3))
