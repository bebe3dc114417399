"""The files of an environment: what it sees, and what becomes of what it wrote.

Mount plans and the mounts themselves, layers and copies, and writing changes back to the project.
The engine decides which changes are written back.
"""
