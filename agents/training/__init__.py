"""How agents learn: in imagination, for real, with Dyna; and the folder of a run."""
