"""What an environment sees as files, and what becomes of what it wrote: mount plans and carrying
them out, layers, copies, and the way back to the project. Which of the changes a project wants is
decided in the engine.
"""
