from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foveal.data.dataset import Dataset, open_dataset
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from foveal.policies import PolicyNet
from samples import nano, write_folder
from studies.segblocks import Study

SIZE = (128, 192)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three images of 128x192 px."""
    return open_dataset(f"folder:{write_folder(tmp_path_factory.mktemp('scenes'), 3, SIZE)}")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Study:
    """Two seeds of a small network with policies for two targets, nothing to train."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    models = []
    for seed in (0, 1):
        network, net = nano(len(data.classes)), PolicyNet(64, 8, 4)
        for target in (0.4, 0.2):
            card = Card("swiftnet_nano", data.classes, data.palette)
            card = replace(card, training={"recipe": {"method": {"target": target}, "seed": seed}})
            models.append(
                str(save_model(network, card, folder / f"target{target:.0%}_{seed}", parts={"policy": net}))
            )
    return Study(
        folder / "out",
        f"folder:{data.pairs[0].image.parent.parent}",
        models=(models[0], models[2]),
        segblocks=tuple(models),
        scale=SIZE,
        limit=1,
        timed=0,
    )
