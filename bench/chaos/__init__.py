"""Random faults on a real cluster under load, and a verdict on everything clients were told.

`plan` draws the faults from a seed, `harm` does and undoes them, `clients` and `load` write,
`verdict` and `availability` judge, `run` is the whole. Start reading at `run.Run`.
"""
