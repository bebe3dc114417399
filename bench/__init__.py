"""What the engine costs: `python -m bench`, one module for each question,
with its workload and its unit.
"""
