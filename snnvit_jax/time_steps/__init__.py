"""How many time steps a layer needs: scores and masks, schedules, and what spikes cost.

Imports nothing of this package but `files`.
"""
