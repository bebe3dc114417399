"""Linux: what holds an environment and sees what is tried in it.

Standard library, `core.beneath` and `core.host_programs` only (and `model.capability` for samples):
the keeper starts without site packages in milliseconds, and wardens and inits are forked from it.
Specifications come in as plain data and messages go out as plain data;
what they mean to a run is the engine's.
Packages here hold nothing but a docstring, since each is read at every start.
"""
