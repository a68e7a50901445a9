"""The models that affectd ships, and in `training` the code that made them."""
