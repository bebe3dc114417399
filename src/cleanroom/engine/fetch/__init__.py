"""The fetch step: gets the dependencies that lock files name before the phases run.

`step` decides what is missing, `environment` runs downloads and tools in environments of their own,
`access` says how phases reach the result. What managers know is in `dependencies`.
"""
