"""The paths of the gateway that generate nothing: token counts, and lists of models in the forms of some clients."""
