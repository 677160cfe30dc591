"""What runs a stage, and never what it computes: errors, scratch folders, the ledger, executors,
models' places.
"""
