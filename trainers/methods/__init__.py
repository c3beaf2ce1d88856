"""One file a method; `METHODS` names what the command line offers.

Modules here are imported by name (`kinosplat.trainers.methods.registry`), since configs must be importable without a
renderer.
"""
