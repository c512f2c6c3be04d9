"""How agents learn: in imagination, for real, by Dyna; and the folder that a run keeps."""
