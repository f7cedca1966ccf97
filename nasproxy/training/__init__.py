"""Training one network on a device, and measuring it."""
