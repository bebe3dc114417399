"""Phases that need not run again.

    cache            whether each phase of a run is skipped, and remembering those that passed
    keys             keys of phases, and which phases are skipped together
    key_parts        what a key is made of, read from plan, files and machine
    input_patterns   patterns of inputs and outputs
    fingerprints     digests of files, stamps of tools and system
    entries          the cache's files
    evidence         whether the earlier run's evidence confirms an entry

Nothing here runs a phase.
"""
