"""`python -m foveal` is `foveal`; for torchrun: `torchrun --nproc-per-node 2 -m -- foveal train RECIPE`."""

from foveal.cli import main

main()
