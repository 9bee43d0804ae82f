"""Hardware -> readings. One file per way to read GPUs; the sampler asks them in the order given by the daemon."""
