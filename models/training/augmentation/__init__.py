"""Random changes to training data, and the disturbances that measurements use."""
