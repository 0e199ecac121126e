"""A language model inside the environment: what is thought acts there, for any learner.

Legend of the room: N rows, B of them that act, k likeliest tokens, V vocabulary, D width of the
model, R numbers of a latent.
"""
