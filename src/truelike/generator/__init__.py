"""The text-to-image generator: families, prompts, conditioning, samplers, and the files of a style
and an adapter.
"""
