"""SpikeGuard: train, attack, audit and report the adversarial robustness of spiking networks."""
