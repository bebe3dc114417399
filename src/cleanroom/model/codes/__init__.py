"""Error codes: what `explain` prints, one record each, in the module that its area names.

`CR-WORKSPACE-004` is in `workspace`. Nothing else belongs here. `explain`, the page
`docs/codes.md` and the SARIF report of a run that did not pass read the texts: neither `--help`
nor a run imports them. A code never changes its meaning; tests hold that each one raised in the
source is here, and the other way round.
"""
