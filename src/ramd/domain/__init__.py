"""The frozen vocabulary of ramd: types only, imported by every other room, importing none.

Start reading at `model` (what the group agrees on), `observation` (facts) and `decision`.
"""
