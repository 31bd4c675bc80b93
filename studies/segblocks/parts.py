"""The table of parts."""

from __future__ import annotations

from functools import partial

from studies.segblocks import borders as borders_part
from studies.segblocks import engine_parts
from studies.segblocks import gmacs as gmacs_part
from studies.segblocks import memory as memory_part
from studies.segblocks import policies as policies_part
from studies.segblocks import residual_block as block_part
from studies.segblocks import shares as shares_part
from studies.segblocks import training_speed as speed_part
from studies.segblocks.blocks import PAPER as BLOCKS
from studies.segblocks.blocks import blocks, draw_blocks
from studies.segblocks.classes import PAPER as CLASSES
from studies.segblocks.classes import classes, draw_classes
from studies.segblocks.distribution import distribution, draw_distribution, summary
from studies.segblocks.main_table import PAPER as MAIN
from studies.segblocks.main_table import draw_main_table, main_table, readable
from studies.segblocks.panels import panels
from studies.segblocks.policy_net import PAPER as POLICY_NET
from studies.segblocks.policy_net import draw_policy_net, policy_net
from studies.segblocks.study import Part

PARTS: dict[str, Part] = {
    "main_table": Part(
        "Quality, cost and speed (tables I and IV, figure 7)",
        "SegBlocks by probability takes the blocks that the policy gives more than one half, as in the "
        "paper; by budget as many of the most probable ones as the target says, exactly and for every image. "
        "Reduced images are the same dense network on images resized to the same work; the paper trains a "
        "network for each size. Everything that is timed takes turns in one process; ± is the standard "
        "deviation over the seeds.",
        main_table,
        (draw_main_table,),
        MAIN,
        readable,
    ),
    "gmacs": Part(
        "GMACs at 1024x2048, and the share of blocks that the paper ran (table I)",
        "Ours are counted at the target. The paper's figures imply more blocks at full resolution than the "
        "target: the released code rounds their number up to a multiple of 1/16 with random blocks, and the "
        "target is a soft term over a batch in training, which nothing enforces afterwards.",
        lambda workshop: gmacs_part.gmacs(),
        (gmacs_part.draw_gmacs,),
    ),
    "classes": Part(
        "Per class: IoU, and pixels at full resolution (table II)",
        "Fine is the share of a class's labelled pixels in blocks at full resolution.",
        classes,
        (draw_classes,),
        CLASSES,
    ),
    "distribution": Part(
        "MACs of single images (figure 8)",
        "By probability the MACs follow the image; by budget every image takes the same.",
        distribution,
        (draw_distribution,),
        table=summary,
    ),
    "policies": Part(
        "Who decides (figure 10)",
        "The same network and blocks, two levels, equal work with the decision's own cost in it; a dash "
        "where the budget does not pay for the look and the cheapest plan. The oracle knows the labels: no "
        "policy, but a bound; its decision is not counted.",
        policies_part.policies,
        (policies_part.draw_policies,),
    ),
    "policy_net": Part(
        "Size of the policy network (table VII)",
        "Each trained afterwards for the first target on the same network, and measured with the same number "
        "of blocks at full resolution, the cost of the decision aside. "
        "GMAC at 1024x2048 with blocks of 128 px.",
        policy_net,
        (draw_policy_net,),
        POLICY_NET,
    ),
    "blocks": Part(
        "Size of the blocks (table VIII)",
        "Each policy trained afterwards on the same network; tiles are half a block; all are timed in turns. "
        "The first row is the dense network.",
        blocks,
        (draw_blocks,),
        BLOCKS,
    ),
    "panels": Part(
        "Where the policy looks closely (figure 9)",
        "Tinted blocks run at half resolution.",
        panels,
    ),
    "borders": Part(
        "What a tile sees of its neighbours (table IX)",
        "The rule is swapped under trained weights, nothing is trained anew; all rules run in plain PyTorch.",
        engine_parts.borders,
        (borders_part.draw_borders,),
        borders_part.PAPER,
    ),
    "memory": Part(
        "Peak memory (table III)",
        "What a run adds at its peak, in a process of its own.",
        engine_parts.memory,
        (memory_part.draw_memory,),
        memory_part.PAPER,
    ),
    "shares": Part(
        "Where the time goes (table VI)",
        "Policy, split (BlockSample), border (BlockPad), combine (BlockCombine), and what the paper does not "
        "single out; in C the border costs no pass of its own.",
        engine_parts.shares,
        (shares_part.draw_shares,),
        shares_part.PAPER,
    ),
    "residual_block": Part(
        "A single residual block (section 4.4.1)",
        "Speed-up over the engine's own dense run, beside the saving in operations.",
        engine_parts.residual_block,
        (block_part.draw_residual_block, partial(block_part.draw_residual_block, sweep="share")),
        block_part.PAPER,
    ),
    "training_speed": Part(
        "A training step (figure 11)",
        "Forward, backward and optimiser on random blocks, in turns with the dense step, in plain PyTorch.",
        engine_parts.training_speed,
        (speed_part.draw_training_speed,),
        speed_part.PAPER,
    ),
    "training_curves": Part(
        "Loss over training steps (figure 11)",
        "Given runs if they have logs; else a small network is trained from nothing, dense and jointly with "
        "a policy, on the same batches.",
        engine_parts.training_curves,
        (speed_part.draw_training_curves,),
        speed_part.PAPER,
        engine_parts.curve_summary,
    ),
}
"""Parts in the order in which they run and are shown."""
