"""Work for many processes, here or on a cluster: sweeps of reports and activations of a whole corpus."""
