"""Quality over work of one network under coarse to fine and its controls, on labelled images.

    python benchmarks/coarse_to_fine/quality.py OUT.json MODEL [--scores] [--only static] [--split full_test]

All rows run on the same images in one process and are executed, not simulated. `--scores` adds other scores
and compositions, `--only` keeps the rows of some policies or methods. The learned scores are fitted here to
the training images; their labels are not read. A model with a policy network is measured with that.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from foveal.benchmark.machine import describe_machine
from foveal.cost import keep_memory
from foveal.data.dataset import Dataset, open_dataset
from foveal.evaluation.baselines import static
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.tally import Entry
from foveal.fusion import faster
from foveal.hub.checkpoint import load_model
from foveal.methods import CoarseToFine, Dense, SegBlocks, Segmenter
from foveal.ops import classify, halve, upsample
from foveal.policies import POLICIES, Learned, PolicyNet, ScoredPolicy, View
from foveal.policies.budgeted import Score
from foveal.policies.refinement import Refinement
from foveal.reporting.rows import as_json
from foveal.storage.atomic import write_atomically
from studies.learned_scores import (
    BenefitHead,
    ThumbnailGain,
    cell_features,
    cell_means,
    fit_benefit,
    fit_thumbnail,
)

BUDGETS = (0.3, 0.4, 0.55, 0.65)
LOW = 0.2
"""Budget with a first look at a quarter."""
TILE = 32
FITTED = 120
"""Training images that the learned scores see."""


@dataclass(frozen=True)
class Differs:
    """Where the coarse answer differs from the dense one: what no score can know, a bound."""

    network: nn.Module

    def __call__(self, view: View) -> Tensor:
        dense = classify(self.network(view.image), view.size)
        coarse = upsample(torch.as_tensor(view.logits), (-(-view.size[0] // 4), -(-view.size[1] // 4)))
        coarse = nn.functional.interpolate(coarse, view.size, mode="bilinear").argmax(1)
        share = torch.bincount(dense.flatten().long(), minlength=coarse.max() + 1).float() / dense.numel()
        weight = (share.clamp(min=1e-4)).rsqrt()
        return (coarse != dense).float() * weight[dense.long()]


def fit_scores(network: nn.Module, data: Dataset) -> tuple[BenefitHead, ThumbnailGain]:
    """Fit both learned scores to the weighted disagreement of the half-resolution answer with dense."""
    differs, cells, gains, examples = Differs(network), [], [], []
    count = min(FITTED, len(data))
    for k in range(count):
        image = data[k * len(data) // count][0][None].to(memory_format=torch.channels_last)
        view = View(image, logits=network(halve(image)).clone())
        gain = cell_means(differs(view), view.size, TILE)
        cells.append(cell_features(view, TILE).movedim(1, -1).flatten(0, 2))
        gains.append(gain.flatten())
        examples.append((image, gain[:, None]))
    return fit_benefit(torch.cat(cells), torch.cat(gains), TILE), fit_thumbnail(examples, TILE)


def always(method: Segmenter, name: str, policy: str, budget: float) -> Entry:
    made = method.eval()
    return Entry(name, policy, budget, lambda target: made)


def refined(network: nn.Module, policy: str, score: Score, keep: float = 0.0) -> list[Entry]:
    rows = []
    for budget in (LOW, *BUDGETS):
        look = 2 if budget == LOW else 1
        method = CoarseToFine(network, budget, TILE, look, Refinement(score, logit_blend=keep))
        rows.append(always(method, "coarse_to_fine", policy, budget))
    return rows


def one_shot(network: nn.Module, policy: str, score: Score) -> list[Entry]:
    rows = []
    for budget in (LOW, *BUDGETS):
        plans = ScoredPolicy(score, budget, TILE, 2 if budget == LOW else 1)
        rows.append(always(SegBlocks(network, plans), "segblocks", policy, budget))
    return rows


def rows_of(network: nn.Module, train: Dataset, scores: bool, only: list[str]) -> list[Entry]:
    fitted = not only or "thumbnail gain" in only or scores
    head, thumbnail = fit_scores(network, train) if fitted else (None, None)
    named = {name: entry.score for name, entry in POLICIES.items() if entry.score is not None}
    entries = [
        *refined(network, "weighted_entropy", named["weighted_entropy"]),
        *refined(network, "random", named["random"]),
        *refined(network, "disagreement oracle", Differs(network)),
        *one_shot(network, "detail", named["detail"]),
        *(static(network, budget) for budget in (LOW, *BUDGETS)),
    ]
    if thumbnail is not None:
        entries += one_shot(network, "thumbnail gain", thumbnail)
    if only:
        entries = [entry for entry in entries if entry.policy in only or entry.method in only]
    if scores:
        entries += [
            *refined(network, "regional_entropy", named["regional_entropy"]),
            *refined(network, "entropy", named["entropy"]),
            *refined(network, "margin", named["margin"]),
            *(refined(network, "benefit head", head) if head is not None else []),
            *refined(network, "weighted_entropy, keep 0.3", named["weighted_entropy"], 0.3),
            *refined(network, "weighted_entropy, keep 0.5", named["weighted_entropy"], 0.5),
        ]
    return entries


def learned(network: nn.Module, net: PolicyNet) -> list[Entry]:
    """Rows of a network that was trained with a policy: as many blocks as it wants, and exact budgets."""
    rows = [always(SegBlocks(network, Learned(net, net.block // 2)), "segblocks", "learned, free", 1.0)]
    for budget in BUDGETS[1:]:
        plans = Learned(net, net.block // 2, budget)
        rows.append(always(SegBlocks(network, plans), "segblocks", "learned", budget))
    random = POLICIES["random"].score
    assert random is not None
    plans = ScoredPolicy(random, 0.55, TILE, 1)
    return [*rows, always(SegBlocks(network, plans), "segblocks", "random", 0.55)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--data", default="camvid:data/camvid")
    parser.add_argument("--split", default="test")
    parser.add_argument("--scores", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    keep_memory()
    model = load_model(options.model)
    network = faster(model.network)
    data, train = open_dataset(options.data, options.split), open_dataset(options.data, "train")
    bar = tqdm(file=sys.stderr, disable=not sys.stderr.isatty())
    with torch.inference_mode():
        if model.policy is not None:
            entries = learned(network, model.policy)
        else:
            entries = rows_of(network, train, options.scores, options.only)
        dense = Dense(network).eval()
        rows = evaluate(dense, data, entries, 0, options.limit, lambda done, total: bar.update())
    record = asdict(describe_machine()) | {"rows": as_json(rows)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(
            f"{row.method:15} {row.policy:28} {row.budget:<5} {row.work:.3f} "
            f"{100 * (row.miou or 0):.2f} {100 * row.agreement:.2f}"
        )


if __name__ == "__main__":
    main()
