"""Measurements of a network and a machine, made once, and the budgets that follow from them."""
