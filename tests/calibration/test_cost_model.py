from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.calibration.cost_model import CostModel, Measurement
from foveal.storage.store import Store
from samples import error_of

SIZES = [(720, 960), (509, 679), (360, 480)]
WORKS = (0.25, 0.5, 0.8)
KNOWN = CostModel(12.0, 2e-5, 3e-4, 5.0, 2.5e-4)

coefficients = st.tuples(
    *(st.floats(0, top) for top in (50, 1e-3)), st.floats(1e-6, 1e-2), st.floats(0, 50), st.floats(1e-6, 1e-2)
)
noise = st.lists(st.floats(0.4, 2.5), min_size=12, max_size=12)


def measured(
    model: CostModel, noise: list[float] | None = None, sizes: list[tuple[int, int]] = SIZES
) -> list[Measurement]:
    factors = iter(noise or [1.0] * 12)
    rows = []
    for size in sizes:
        pixels = math.prod(size)
        runs = tuple((work, next(factors) * model.predict(pixels, work)) for work in WORKS)
        rows.append(Measurement(size, next(factors) * model.dense(pixels), runs))
    return rows


def numbers(model: CostModel) -> list[float]:
    names = ("fixed", "per_pixel", "per_sample", "dense_fixed", "dense_per_pixel")
    return [getattr(model, name) for name in names]


@given(coefficients)
def test_the_numbers_behind_exact_times_are_found(known: tuple[float, ...]) -> None:
    model = CostModel(*known)
    found = CostModel.fit(measured(model))
    assert found.error < 1e-5
    for row in found.rows:
        assert found.dense(row.pixels) == pytest.approx(model.dense(row.pixels), rel=1e-4)
        for work in (0.1, 0.4, 1.0):
            assert found.predict(row.pixels, work) == pytest.approx(model.predict(row.pixels, work), rel=1e-4)


def test_every_number_is_found() -> None:
    assert numbers(CostModel.fit(measured(KNOWN))) == pytest.approx(numbers(KNOWN), rel=1e-6)


@given(coefficients, noise)
def test_noise_gives_no_negative_number_and_no_falling_time(
    known: tuple[float, ...], noise: list[float]
) -> None:
    found = CostModel.fit(measured(CostModel(*known), noise))
    assert all(number >= 0 for number in numbers(found))
    pixels = [1, 1000, 10**5, 10**6, 10**7]
    works = [0.0, 0.1, 0.5, 1.0, 2.0]
    for work in works:
        times = [found.predict(p, work) for p in pixels]
        assert times == sorted(times)
    for p in pixels:
        times = [found.predict(p, work) for work in works]
        assert times == sorted(times)
    assert [found.dense(p) for p in pixels] == sorted(found.dense(p) for p in pixels)


@given(coefficients, noise)
def test_no_other_numbers_explain_noisy_times_better(known: tuple[float, ...], noise: list[float]) -> None:
    rows = measured(CostModel(*known), noise)
    found = CostModel.fit(rows)

    def wrong(model: CostModel) -> float:
        return sum((model.predict(row.pixels, w) / ms - 1) ** 2 for row in rows for w, ms in row.runs)

    for name in ("fixed", "per_pixel", "per_sample"):
        for factor in (0.9, 1.1):
            assert wrong(found) <= wrong(replace(found, **{name: getattr(found, name) * factor})) + 1e-9
    for name, little in (("fixed", 0.1), ("per_pixel", 1e-7), ("per_sample", 1e-7)):
        assert wrong(found) <= wrong(replace(found, **{name: getattr(found, name) + little})) + 1e-9


def test_images_of_one_size_scale_with_their_pixels() -> None:
    found = CostModel.fit(measured(KNOWN, sizes=SIZES[:1]))
    assert found.error < 1e-6
    assert found.fixed == found.dense_fixed == 0
    assert found.dense(4 * found.largest) == pytest.approx(4 * found.dense(found.largest))


def test_a_single_run_gives_a_model() -> None:
    found = CostModel.fit([Measurement((100, 100), 8.0, ((0.5, 5.0),))])
    assert found.predict(10_000, 0.5) == pytest.approx(5)
    assert found.dense(10_000) == pytest.approx(8)


def test_errors_are_relative() -> None:
    found = CostModel.fit([Measurement((100, 100), 8.0, ((0.5, 10.0), (0.5, 1000.0)))])
    ours = found.predict(10_000, 0.5)
    assert ours == pytest.approx(10, rel=0.02)
    assert found.error == pytest.approx(math.sqrt(((ours / 10 - 1) ** 2 + (ours / 1000 - 1) ** 2) / 3))


@given(coefficients, st.floats(0.01, 2.0), st.integers(10**3, 10**7))
def test_work_for_a_time_is_the_work_that_takes_it(
    known: tuple[float, ...], work: float, pixels: int
) -> None:
    model = CostModel(*known)
    found = model.work_for(pixels, model.predict(pixels, work))
    assert found == pytest.approx(work, rel=1e-3, abs=1e-3) or model.fixed > 1e5 * model.per_sample * pixels
    assert model.predict(pixels, found) <= model.predict(pixels, work) * (1 + 1e-9)


def test_work_for_a_time_at_the_ends() -> None:
    assert KNOWN.work_for(10**6, 10.0) == 0
    assert replace(KNOWN, per_sample=0.0).work_for(10**6, 1000.0) == math.inf
    assert KNOWN.work_for(10**6, 1000.0) > 1


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = CostModel.fit(measured(KNOWN, [1.1, 1, 0.9, 1] * 3))
    store = Store("cost", 1, tmp_path)
    store.write("model", model.as_record())
    assert CostModel.from_record(store.read("model")) == model


def damages() -> list[Any]:
    part = {"fixed": 1, "per_pixel": 1, "per_sample": 1, "dense_fixed": 1}
    whole = part | {"dense_per_pixel": 1, "error": 0, "rows": []}
    return [
        *(
            {key: value for key, value in whole.items() if key != missing}
            for missing in ("per_sample", "rows")
        ),
        *(whole | change for change in ({"fixed": -1}, {"fixed": "much"}, {"fixed": None}, {"other": 1})),
        *(whole | {"rows": rows} for rows in ([{}], 7, [{"size": [1], "dense_ms": 1, "runs": []}])),
        whole | {"fixed": math.nan},
        {},
    ]


@pytest.mark.parametrize("record", damages())
def test_damaged_records_are_refused_in_one_sentence(record: dict[str, Any]) -> None:
    assert "the record: no cost model (" in error_of(lambda: CostModel.from_record(record))


def test_times_that_cannot_be_are_refused() -> None:
    assert "per_sample of a cost model is -1" in error_of(lambda: replace(KNOWN, per_sample=-1))
    assert "fixed of a cost model is nan" in error_of(lambda: replace(KNOWN, fixed=math.nan))
    assert "no adaptive run" in error_of(lambda: CostModel.fit([]))
    assert "not above 0" in error_of(lambda: CostModel.fit([Measurement((8, 8), 0.0, ((0.5, 1.0),))]))
