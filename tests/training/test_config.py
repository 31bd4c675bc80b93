from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model, save_model
from foveal.methods import Dense, SegBlocks
from foveal.models import MODELS, create_model
from foveal.training.build import build_run, save_run
from foveal.training.config import Recipe, RecipeError, read_recipe
from foveal.training.loop import train
from samples import nano, write_folder

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    """Lines of the RecipeError, the first one without the path."""
    with pytest.raises(RecipeError) as error:
        read_recipe(path, overrides)
    first, *rest = str(error.value).splitlines()
    assert first.startswith(f"{path}: ")
    return [first.removeprefix(f"{path}: "), *(line.removeprefix("  ") for line in rest)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_repository_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.model.name in MODELS
    assert json.loads(json.dumps(recipe.as_dict()))["train"]["steps"] == recipe.train.steps


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, "")) == Recipe()


def test_every_value_can_be_written_and_read_again(tmp_path: Path) -> None:
    """The resolved recipe, written as TOML, gives the same recipe."""
    recipe = read_recipe(written(tmp_path, ""), ["seed=7", "train.hardest=0.25", "data.crop=[64, 96]"])
    state = json.loads(json.dumps(recipe.as_dict()))
    lines = [f"seed = {state.pop('seed')}"]
    for section, values in state.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    assert read_recipe(written(tmp_path, "\n".join(lines))) == recipe


def test_all_problems_are_listed_at_once_with_suggestions(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        sed = 1
        [model]
        nam = "swiftnet_nano"
        [train]
        steps = "many"
        zzz = 3
        batch = true
        learning_rate = 1
        [method]
        name = "segblocks"
        [data]
        crop = [64]
        scale = [1, "x"]
        """,
    )
    first, *rest = problems(path, "train.steps", "method.tiels=[32]")
    assert first == "9 problems"
    assert set(rest) >= {
        "sed   unknown; did you mean 'seed'?",
        "model.nam   unknown; did you mean 'name'?",
        "train.steps   is 'many'; give a whole number",
        "train.batch   is True; give a whole number",
        "data.crop.1   is [64]; give a value",
        "data.scale.1   is 'x'; give a number",
        "--set train.steps   give section.key=value",
        "method.tiels   unknown; did you mean 'tiles'?",
    }
    assert any(line.startswith("train.zzz   unknown; known: steps, batch, ") for line in rest)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.steps=0", "train.steps   is 0; give at least 1"),
        ("train.batch=-1", "train.batch   is -1; give at least 1"),
        ("train.learning_rate=nan", "train.learning_rate   is nan; give a finite number"),
        ("train.average=1", "train.average   is 1; give less than 1"),
        ("train.hardest=0", "train.hardest   is 0; give more than 0"),
        ("data.crop=[16, 64]", "data.crop.0   is 16; give at least 32"),
        ("data.scale=[2.0, 0.5]", "data   scale is [2.0, 0.5]; give 0 < low <= high"),
        ("data.scenes_share=-1", "data.scenes_share   is -1; give at least 0"),
        ("data.scenes_share=0.5", "data   scenes_share is 0.5 of no scenes; give scenes, or 0"),
        (
            "method.name=segblock",
            "method.name   no trainable method named 'segblock'; did you mean 'segblocks'? available: dense, "
            "segblocks, coarse_to_fine, layer_cascade, mess, model_select, dynamic_decoder, "
            "routing, dynconv",
        ),
        ("method.max_level=-1", "method.max_level   is -1; give at least 0"),
        ("method.tiles=[]", "method.tiles   is []; give a list of at least 1"),
        ("method.tiles=[32, 0]", "method.tiles.1   is 0; give at least 1"),
        ("method.budgets=[0.0, 0.5]", "method.budgets.0   is 0.0; give more than 0"),
        ("method.budgets=[0.6, 0.5]", "method   budgets are [0.6, 0.5]; give 0 < low <= high"),
        ("method.consistency=-1", "method.consistency   is -1; give at least 0"),
        ("method.block=48", "method   block is 48; give a multiple of 32 px, 2^(policy_depth + 1)"),
        ("method.block=0", "method.block   is 0; give at least 1"),
        ("method.gamma=inf", "method.gamma   is inf; give a finite number"),
        ("method.policy_width=0", "method.policy_width   is 0; give at least 1"),
        ("method.coarse_level=-1", "method.coarse_level   is -1; give at least 0"),
        (
            "method.policy_depth=1",
            "method.policy_depth   is 1; give at least 2",
        ),
        (
            "method.tile=0",
            "method.tile   is 0; give at least 1",
        ),
        (
            "method.policy=learnt",
            "method.policy   is 'learnt'; give 'random' or 'learned'",
        ),
        (
            "method.frozen=true",
            "method   frozen is true; without a learned policy nothing would be trained",
        ),
        ("train.steps=3.5", "train.steps   is 3.5; give a whole number"),
        ("train=3", "train   is 3; give a section with keys"),
        ("seed.x=3", "--set seed.x=3   seed is no section; give section.key=value"),
        ("model.name.x=3", "--set model.name.x=3   name is no section; give section.key=value"),
        ("nothing.here=3", "nothing   unknown; known: seed, model, data, method, train"),
        ("=3", "   unknown; known: seed, model, data, method, train"),
        ("noequals", "--set noequals   give section.key=value"),
        ("train.steps=", "train.steps   is ''; give a whole number"),
        ("data.crop=[1, 2", "data.crop   is '[1, 2'; give a list"),
    ],
)
def test_values_that_no_run_could_use(tmp_path: Path, override: str, problem: str) -> None:
    path = written(tmp_path, 'seed = 3\n[model]\nname = "swiftnet_nano"\n[method]\nname = "segblocks"\n')
    assert problems(path, override) == ["1 problem", problem]


def test_everything_wrong_with_a_method_is_listed_at_once(tmp_path: Path) -> None:
    """Unknown keys, wrong types and values that no run could use, side by side."""
    path = written(
        tmp_path,
        """
        [method]
        name = "segblocks"
        policy = "learnt"
        blok = 64
        target = 1.0
        gamma = -1
        policy_weight = 0
        gradient = "gumbel"
        policy_width = "wide"
        budgets = [0.6, 0.5]
        frozen = true
        """,
    )
    first, *rest = problems(path, "method.tile=0", "train.steps=0")
    assert first == "9 problems"
    assert "method.blok   unknown; did you mean 'block'?" in rest
    assert {line.split("   ")[0] for line in rest} == {
        *(f"method.{key}" for key in ("blok", "policy", "target", "gamma", "policy_weight", "gradient")),
        *(f"method.{key}" for key in ("policy_width", "tile")),
        "train.steps",
    }
    assert "method.policy_width   is 'wide'; give a whole number" in rest


def test_a_learned_policy_needs_blocks_of_whole_squares_of_tiles(tmp_path: Path) -> None:
    path = written(tmp_path, '[method]\nname = "segblocks"\npolicy = "learned"\n')
    assert read_recipe(path).method.block == 2 * read_recipe(path).method.tile
    found = problems(path, "method.tile=64")
    assert found[1] == "method   tile is 64; a block of 64 px holds 2x2, 4x4, ... tiles"
    assert (
        problems(path, "method.policy_depth=6")[1]
        == "method   block is 64; give a multiple of 128 px, 2^(policy_depth + 1)"
    )


def test_overrides_replace_values_and_may_leave_out_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, "[train]\nsteps = 5\n")
    overrides = ["train.steps=9", "model.name=swiftnet_nano", " train.bf16 =true", "data.scale=[1, 1.5]"]
    recipe = read_recipe(path, overrides)
    assert (recipe.train.steps, recipe.model.name, recipe.train.bf16) == (9, "swiftnet_nano", True)
    assert recipe.data.scale == (1.0, 1.5)
    assert isinstance(recipe.data.scale[0], float)
    assert read_recipe(path).train.steps == 5


@pytest.mark.parametrize("content", [b"train = [", b"\xff\xfe", b"[train]\nsteps = 1\nsteps = 2\n"])
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    assert problems(path)[0].startswith("no readable recipe (")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml")[0].startswith("no readable recipe (")
    assert problems(tmp_path)[0].startswith("no readable recipe (")


# From a recipe to a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", 2, (48, 64))


def recipe_for(folder: Path, *overrides: str) -> Recipe:
    text = f"""
    seed = 3
    model.name = "swiftnet_nano"
    data = {{ train = "folder:{folder}", crop = [32, 48] }}
    train = {{ steps = 2, batch = 2, warmup = 1 }}
    """
    return read_recipe(written(folder, text), overrides)


def test_a_recipe_is_built_trained_and_saved(folder: Path, tmp_path: Path) -> None:
    recipe, run = recipe_for(folder, "method.name=segblocks", "method.tile=64"), tmp_path / "run"
    method, batches, schedule, data = build_run(recipe, run)
    assert isinstance(method, SegBlocks)
    assert (schedule.steps, schedule.seed) == (2, 3)
    assert batches[0][0].shape == (2, 3, 32, 48)
    network = train(method, batches, schedule, run)
    model = load_model(save_run(recipe, run, method, data))
    assert model.card.classes == data.classes
    assert model.card.tile == 64
    assert model.card.training["recipe"]["seed"] == 3
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(
            model.network(image), expected, rtol=0, atol=0.01 * expected.abs().max().item()
        )


def test_the_seed_decides_the_first_weights(folder: Path, tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        method = build_run(recipe_for(folder, f"seed={seed}"), tmp_path / "run")[0]
        assert isinstance(method, Dense)
        return method.network.encoder.stem[0][0].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_classes_are_weighted_by_how_rare_they_are(folder: Path, tmp_path: Path) -> None:
    weight = build_run(recipe_for(folder), tmp_path)[0].class_weight
    labels = torch.cat([build_run(recipe_for(folder), tmp_path)[3][n][1].flatten() for n in range(2)])
    counts = torch.bincount(labels[labels != 255].long(), minlength=11)
    assert int(counts.argmax()) == int(weight.argmin())
    flat = build_run(recipe_for(folder, "train.class_balance=0"), tmp_path)[0].class_weight
    assert flat.tolist() == [1.0] * 11


def test_a_run_starts_from_encoder_weights_with_statistics_of_its_images(
    folder: Path, tmp_path: Path
) -> None:
    encoder = nano().encoder
    path = tmp_path / "encoder.pt"
    torch.save(encoder.state_dict(), path)
    method = build_run(recipe_for(folder, f"model.encoder_weights={path}"), tmp_path)[0]
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        for found, expected in zip(method.network.eval().encoder(x), encoder.eval()(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    first, theirs = method.network.encoder.stem[0], encoder.stem[0]
    torch.testing.assert_close(first[0].weight, theirs[0].weight)
    assert not torch.allclose(first[1].running_mean, theirs[1].running_mean, atol=1e-2)


def test_a_run_starts_from_a_trained_model_that_fits(folder: Path, tmp_path: Path) -> None:
    network = create_model("swiftnet_nano", 11)
    card = Card("swiftnet_nano", tuple("abcdefghijk"), ((0, 0, 0),) * 11)
    path = save_model(network, card, tmp_path / "model", half=False)
    method = build_run(recipe_for(folder, f"model.start={path}"), tmp_path)[0]
    for key, value in network.state_dict().items():
        assert torch.equal(method.network.state_dict()[key], value)
    other = save_model(
        create_model("swiftnet_nano", 4),
        Card("swiftnet_nano", tuple("abcd"), ((0, 0, 0),) * 4),
        tmp_path / "b",
    )
    with pytest.raises(ValueError, match=r"is a swiftnet_nano of 4 classes, the recipe needs .* of 11"):
        build_run(recipe_for(folder, f"model.start={other}"), tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=swiftnet_nan", "no network named 'swiftnet_nan'; did you mean 'swiftnet_nano'"),
        ("model.start=camvid_rn81", "no model 'camvid_rn81'"),
        ("model.encoder_weights=nowhere.pt", "nowhere.pt: no such weights file"),
        ("data.train=foldr:x", "unknown data set kind 'foldr'"),
        ("data.train=folder:/nowhere", "names no folder"),
    ],
)
def test_what_a_recipe_names_must_exist(folder: Path, override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build_run(recipe_for(folder, override), tmp_path)


def test_generated_scenes_are_mixed_into_data_of_their_classes_only(folder: Path, tmp_path: Path) -> None:
    scenes = ["data.scenes=2", "data.scenes_share=0.5"]
    with pytest.raises(ValueError, match=r"scenes have the 11 classes of CamVid, data/train has others"):
        build_run(recipe_for(folder, *scenes), tmp_path)


def test_tiles_that_do_not_fit_the_network_are_refused_before_training(folder: Path, tmp_path: Path) -> None:
    recipe = recipe_for(folder, "method.name=segblocks", "method.tiles=[32, 48]")
    with pytest.raises(ValueError, match="tile is 48 px and the network has stride 32"):
        build_run(recipe, tmp_path / "run")
