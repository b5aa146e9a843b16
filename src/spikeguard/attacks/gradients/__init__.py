"""How an attack differentiates the model: backpropagation, spiking rules, estimates."""
