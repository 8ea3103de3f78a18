"""Captions that do not guess at gender: the words, and how a language model is kept from them."""
