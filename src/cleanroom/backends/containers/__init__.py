"""Environments in containers of Docker or Podman: the one adapter to their engines, what is asked
of them, images, and removing containers of dead runs. Guarding and observing is the embedded
backend's.
"""
