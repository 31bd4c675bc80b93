"""Routes through a lattice network: which paths an image takes, what they cost, and who chooses them."""

from foveal.models.lattice import Weights
from foveal.routes.choice import BudgetChoice, Choice, FixedChoice
from foveal.routes.costs import LatticeCosts
from foveal.routes.fixed import FIXED, fixed_route, usual_route
from foveal.routes.route import CLOSED, Route
from foveal.routes.router import Asking, Chance, Router
from foveal.routes.run import LatticeParts, expected_share, soft, usual_weights

__all__ = [
    "CLOSED",
    "FIXED",
    "Asking",
    "BudgetChoice",
    "Chance",
    "Choice",
    "FixedChoice",
    "LatticeCosts",
    "LatticeParts",
    "Route",
    "Router",
    "Weights",
    "expected_share",
    "fixed_route",
    "soft",
    "usual_route",
    "usual_weights",
]
