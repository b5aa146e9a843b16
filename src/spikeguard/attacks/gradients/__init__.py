"""Gradients of attacks: backpropagation, rules for spiking layers, finite differences."""
