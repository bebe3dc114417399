"""Proofs: what this kernel can hold, tried in throw-away children, and canaries, which try inside
an environment what its policy forbids. Nothing here holds anything itself.
"""
