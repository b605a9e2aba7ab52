"""What is trained: records, catalogue, initial parameters, batch order, augmentation, FLOP counts."""
