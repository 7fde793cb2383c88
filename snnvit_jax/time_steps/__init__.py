"""How many time steps a layer needs: scores and masks, schedules, and what spikes cost.

Imports `common` and `xla`.
"""
