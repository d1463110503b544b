"""Readers of hand data, and the labels and augmentation made from them."""
