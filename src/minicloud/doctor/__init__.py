"""The whole way from here to a guest's disk, looked at step by step: facts, and what they mean."""
