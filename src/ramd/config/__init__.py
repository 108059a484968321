"""Configuration: one typed model of every key, and everything that is made from it.

Lives here: the keys (`topics`), reading a file with all its faults at once (`load`), checks across
keys and against the host (`checks`), writing a file (`write`), reload (`reload`), the generated
reference and samples (`reference`), and ramctrl's own few keys (`client`).
Must not live here: anything that acts on the values.
Start reading at `model.Config`; callers want `load.load(path, env) -> Config`.

Nothing is imported here, so that `ramd.config.client` stays cheap: it does not import pydantic.
"""
