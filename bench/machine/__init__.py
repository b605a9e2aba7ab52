"""What the machine is and does: environment, monitor, GPU, energy, installed size, known faults."""
