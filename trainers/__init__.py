"""The training loop, the densification strategies, and one file a method.

`kinosplat.trainers.run` has what callers need: `train`, `resume`, `load_run`; `kinosplat.trainers.config` the options,
`kinosplat.trainers.callbacks` what a run tells whoever watches.
"""
