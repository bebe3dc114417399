"""What the tests share: harnesses, builders, inventories, and attacks, faults and hostile
inputs as data.
"""
